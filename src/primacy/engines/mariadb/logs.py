"""Binary and relay logs, read as files by MariaDB's own `mariadb-binlog`.

Promises  What is read was complete: a transaction without its end is not reported.
Assumes   The agent may read the server's files: it is root, or runs as the same user.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from primacy.engines.mariadb.gtid import DOMAIN, Gtid, parse
from primacy.engines.mariadb.observe import EpochRow
from primacy.engines.mariadb.programs import Program, running
from primacy.errors import Corrupt
from primacy.model import Epoch, NodeId

CHUNK_BYTES = 64 * 1024
"""Read at once: a millisecond of work for the event loop."""

_GTID = re.compile(rb"^#\d+ .*\tGTID (\d+-\d+-\d+)\b(.*)$")
_GROUP_BEGINS = (b"START TRANSACTION", b"XA START")
_GROUP_ENDS = (b"COMMIT", b"ROLLBACK", b"XA PREPARE")
_EPOCH_INSERT = b"### INSERT INTO `primacy`.`epochs`"
_COLUMN = re.compile(rb"^###   @(\d)=(.*?)(?: /\*.*)?$")


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands in a stretch of a log."""

    transactions: tuple[Gtid, ...] = ()
    """Complete ones of our domain, in the order of the log."""
    epochs: tuple[EpochRow, ...] = ()
    is_whole: bool = True
    """False where the program stopped before the end of the files."""
    words: str = ""
    """The program's own complaint."""

    @property
    def last_sequence(self) -> int:
        """0 where there is no transaction."""
        return max((each.sequence for each in self.transactions), default=0)


def binary_logs(data: Path) -> list[Path]:
    """In order."""
    return sorted(each for each in data.glob("binlog.[0-9]*") if each.suffix[1:].isdigit())


def relay_logs(data: Path) -> list[Path]:
    """In order."""
    return sorted(each for each in data.glob("relay.[0-9]*") if each.suffix[1:].isdigit())


async def read_logs(
    program: str, files: list[Path], *, start: str = "", save_to: Path | None = None
) -> Reading:
    """Read files from the GTID position `start` (exclusive) to their end.

    With `save_to` the SQL that replays them is written there as well.
    """
    if not files:
        return Reading()
    scan = _Scan()
    async with running(_binlog(program, files, start), has_output=True) as source:
        if save_to is None:
            async for line in _lines(source):
                scan.feed(line)
        else:
            with save_to.open("wb") as file:
                async for line in _lines(source):
                    scan.feed(line)
                    file.write(line + b"\n")
        code = await source.ended()
        words = source.words
    return Reading(tuple(scan.transactions), tuple(scan.epochs), code == 0, words)


async def replay(program: str, files: list[Path], *, start: str, into: list[str]) -> None:
    """Pipe the logs from `start` (exclusive) into a client program. GTIDs stay as they are.

    `Unavailable` where either program failed; what was applied until then stays applied.
    """
    async with (
        running(_binlog(program, files, start), has_output=True) as source,
        running(into, has_input=True) as sink,
    ):
        while chunk := await source.read(CHUNK_BYTES):
            await sink.write(chunk)
        await source.succeeded()
        await sink.succeeded()


class _Scan:
    """Reads the text of mariadb-binlog line by line."""

    def __init__(self) -> None:
        self.transactions: list[Gtid] = []
        self.epochs: list[EpochRow] = []
        self._open: Gtid | None = None
        self._is_group = False
        self._columns: dict[int, str] | None = None

    def feed(self, line: bytes) -> None:
        if self._columns is not None:
            self._feed_column(line)
        if (found := _GTID.match(line)) is not None:
            self._begin(parse(found.group(1).decode()))
        elif self._open is not None and line.startswith(_GROUP_BEGINS):
            self._is_group = True
        elif self._open is not None and self._is_end(line):
            self._end()
        elif line.startswith(_EPOCH_INSERT):
            self._columns = {}

    def _begin(self, gtid: Gtid) -> None:
        self._open = gtid
        self._is_group = False

    def _is_end(self, line: bytes) -> bool:
        """A statement that stands alone, such as DDL, is one event; a group has a last one."""
        if not self._is_group:
            return b"\tQuery\t" in line
        return line.startswith(_GROUP_ENDS) or b"\tXid = " in line

    def _end(self) -> None:
        if self._open is not None and self._open.domain == DOMAIN:
            self.transactions.append(self._open)
        self._open = None

    def _feed_column(self, line: bytes) -> None:
        found = _COLUMN.match(line)
        columns = self._columns
        if found is not None and columns is not None:
            columns[int(found.group(1))] = found.group(2).decode(errors="replace")
            if len(columns) == 3:
                self.epochs.append(_epoch_row(columns))
                self._columns = None


def _epoch_row(columns: dict[int, str]) -> EpochRow:
    try:
        node = NodeId(columns[2].strip("'"))
        return EpochRow(Epoch(int(columns[1])), node, int(columns[3]))
    except (KeyError, ValueError) as error:
        raise Corrupt(
            f"an epoch row in the log cannot be read: {columns}",
            hint="The table primacy.epochs was changed. Clone the node anew.",
        ) from error


async def _lines(source: Program) -> AsyncIterator[bytes]:
    rest = b""
    while chunk := await source.read(CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


def _binlog(program: str, files: list[Path], start: str) -> list[str]:
    position = [f"--start-position={start}"] if start else []
    return [program, "--no-defaults", "--verbose", *position, *[str(each) for each in files]]
