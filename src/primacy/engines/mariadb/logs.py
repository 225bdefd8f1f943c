"""Binary and relay logs, read as files by MariaDB's own `mariadb-binlog`.

Promises  What is read was complete: a transaction without its end is not reported.
Assumes   The agent may read the server's files: it is root, or runs as the same user.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from primacy.engines.mariadb.gtid import DOMAIN, Gtid, parse
from primacy.engines.mariadb.observe import EpochRow
from primacy.errors import Corrupt, Unavailable
from primacy.model import Epoch, NodeId

WORDS_MAX = 2000
"""Of a program's complaints, for an error message."""

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
    process = await _binlog_process(program, files, start)
    complaints = ""
    try:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(_complaints(process))
            await _scan_lines(process, scan, save_to)
        complaints = listening.result()
        code = await process.wait()
    finally:
        _kill(process)
    return Reading(tuple(scan.transactions), tuple(scan.epochs), code == 0, complaints)


async def replay(program: str, files: list[Path], *, start: str, into: list[str]) -> None:
    """Pipe the logs from `start` (exclusive) into a client program. GTIDs stay as they are.

    `Unavailable` where either program failed; what was applied until then stays applied.
    """
    source = await _binlog_process(program, files, start)
    try:
        sink = await asyncio.create_subprocess_exec(
            *into,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                source_words = tasks.create_task(_complaints(source))
                sink_words = tasks.create_task(_complaints(sink))
                await _pump(source, sink)
            codes = await source.wait(), await sink.wait()
        finally:
            _kill(sink)
    finally:
        _kill(source)
    if codes != (0, 0):
        words = " ".join([source_words.result(), sink_words.result()]).strip()
        raise Unavailable(
            f"replaying {files[0].name} to {files[-1].name} from {start!r} failed: {words}",
            hint="What was applied stays. The files are untouched; try again.",
        )


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

    def finish(self) -> None:
        """The text has ended: a transaction still open has no end on this disk."""
        self._open = None

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


async def _scan_lines(
    process: asyncio.subprocess.Process, scan: _Scan, save_to: Path | None
) -> None:
    stream = _stdout(process)
    if save_to is None:
        async for line in _lines(stream):
            scan.feed(line)
    else:
        with save_to.open("wb") as file:
            async for line in _lines(stream):
                scan.feed(line)
                file.write(line + b"\n")
    scan.finish()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    while chunk := await stream.read(1 << 16):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


async def _binlog_process(
    program: str, files: list[Path], start: str
) -> asyncio.subprocess.Process:
    position = [f"--start-position={start}"] if start else []
    return await asyncio.create_subprocess_exec(
        program,
        "--no-defaults",
        "--verbose",
        *position,
        *[str(each) for each in files],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )


async def _pump(source: asyncio.subprocess.Process, sink: asyncio.subprocess.Process) -> None:
    writer = sink.stdin
    if writer is None:
        return
    try:
        while chunk := await _stdout(source).read(1 << 16):
            writer.write(chunk)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        _kill(source)  # The client has ended: its exit code and its words say why.


def _stdout(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    if process.stdout is None:
        raise Unavailable("a program was started without its output", hint="Try again.")
    return process.stdout


async def _complaints(process: asyncio.subprocess.Process) -> str:
    """The end of what a program writes to its standard error."""
    tail = b""
    while process.stderr is not None and (chunk := await process.stderr.read(1 << 14)):
        tail = (tail + chunk)[-WORDS_MAX:]
    return tail.decode(errors="replace").strip()


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            return  # It has exited by itself.
