"""Binary and relay logs, read as files by MariaDB's own `mariadb-binlog`.

Promises  What is read was complete: a transaction without its end is not reported.
Assumes   The agent may read the server's files: it is root, or runs as the same user.
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from primacy.engines.mariadb.gtid import DOMAIN, Gtid, parse
from primacy.engines.mariadb.observe import EpochRow
from primacy.engines.mariadb.orphans import Orphans
from primacy.engines.mariadb.programs import Program, running
from primacy.engines.mariadb.readable import Readable
from primacy.engines.mariadb.scanning import Change, Scan

CHUNK_BYTES = 64 * 1024
"""Read at once: a millisecond of work for the event loop."""
WITHOUT_ROWS = ["--base64-output=decode-rows", "--skip-annotate-row-events"]
_GTID = re.compile(rb"\d+-\d+-\d+")
NO_BINARY_LOG = b"SET SESSION sql_log_bin = 0;\n"


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands in a stretch of a log."""

    changes: tuple[Change, ...] = ()
    """The complete transactions of our domain, in the order of the log."""
    epochs: tuple[EpochRow, ...] = ()
    is_whole: bool = True
    """False where the program stopped before the end of the files."""
    words: str = ""
    """The program's own complaint."""
    columns: Mapping[str, int] = field(default_factory=dict)
    """How many columns the row images of each table have; 0 where not all have all of them."""

    @property
    def transactions(self) -> tuple[Gtid, ...]:
        return tuple(each.gtid for each in self.changes)

    @property
    def last_sequence(self) -> int:
        """0 where there is no transaction."""
        return max((each.gtid.sequence for each in self.changes), default=0)


def binary_logs(data: Path) -> list[Path]:
    """In order."""
    return sorted(each for each in data.glob("binlog.[0-9]*") if each.suffix[1:].isdigit())


def relay_logs(data: Path) -> list[Path]:
    """In order."""
    return sorted(each for each in data.glob("relay.[0-9]*") if each.suffix[1:].isdigit())


async def read_logs(
    program: str, files: list[Path], *, start: str = "", has_rows: bool = True
) -> Reading:
    """Read files from the GTID position `start` (exclusive) to their end. Without rows it is a
    fraction of the work, and changes have no tables."""
    if not files:
        return Reading()
    return await _read(_binlog(program, files, start, has_rows=has_rows), None, None)


async def ends_before(program: str, path: Path) -> int:
    """The last sequence of our domain before this file, by the list at its head: no more of the
    file is read. 0 where the log begins here, or has no such list."""
    said = b""
    async with running(_binlog(program, [path], "", has_rows=False), has_output=True) as source:
        async for line in _lines(source):
            if said or b"\tGtid list [" in line:
                said += line
            if said.endswith(b"]"):
                break
    found = [parse(each.decode()) for each in _GTID.findall(said)]
    return max((each.sequence for each in found if each.domain == DOMAIN), default=0)


async def files_from(program: str, files: list[Path], first_sequence: int) -> list[Path]:
    """The newest of `files` (in order) that hold everything from one sequence on."""
    for place in range(len(files) - 1, 0, -1):
        if await ends_before(program, files[place]) < first_sequence:
            return files[place:]
    return files


async def save_logs(
    program: str, files: list[Path], *, start: str, replayable: Path, readable: Path
) -> Reading:
    """As `read_logs`. The SQL that replays them is written, and what it does in plain words."""
    with replayable.open("wb") as raw, readable.open("wb") as plain:
        return await _read(_binlog(program, files, start), raw, plain)


async def _read(argv: list[str], raw: BinaryIO | None, plain: BinaryIO | None) -> Reading:
    scan, told = Scan(), Readable()
    async with running(argv, has_output=True) as source:
        async for line in _lines(source):
            scan.feed(line)
            if raw is not None:
                raw.write(line + b"\n")
            if plain is not None:
                plain.writelines(told.feed(line))
        code = await source.ended()
        words = source.words
    return Reading(tuple(scan.changes), tuple(scan.epochs), code == 0, words, scan.columns)


async def replay(program: str, files: list[Path], *, start: str, into: list[str]) -> None:
    """Pipe the logs from `start` (exclusive) into a client program. GTIDs stay as they are.

    What is left of a transaction before `start` is left out. `Unavailable` where either program
    failed; what was applied until then stays applied.
    """
    orphans = Orphans()
    async with (
        running(_binlog(program, files, start), has_output=True) as source,
        running(into, has_input=True) as sink,
    ):
        waiting = bytearray()
        async for line in _lines(source):
            for passed in orphans.passes(line):
                waiting += passed + b"\n"
            if len(waiting) >= CHUNK_BYTES:
                await sink.write(bytes(waiting))
                waiting.clear()
        await sink.write(bytes(waiting))
        await sink.succeeded()  # First: it applies all that was whole, whatever comes after that.
        await source.succeeded()


async def undo(program: str, files: list[Path], *, start: str, into: list[str]) -> None:
    """Pipe the reverse of the logs from `start` (exclusive) into a client program, latest first.
    Nothing of it reaches a binary log. `Unavailable` as for `replay`."""
    reading = [*_binlog(program, files, start), "--flashback"]
    async with (
        running(reading, has_output=True) as source,
        running(into, has_input=True) as sink,
    ):
        await sink.write(NO_BINARY_LOG)
        while chunk := await source.read(CHUNK_BYTES):
            await sink.write(chunk)
        await source.succeeded()
        await sink.succeeded()


async def _lines(source: Program) -> AsyncIterator[bytes]:
    rest = b""
    while chunk := await source.read(CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


def _binlog(program: str, files: list[Path], start: str, *, has_rows: bool = True) -> list[str]:
    position = [f"--start-position={start}"] if start else []
    shown = ["--verbose"] if has_rows else WITHOUT_ROWS
    return [program, "--no-defaults", *shown, *position, *[str(each) for each in files]]
