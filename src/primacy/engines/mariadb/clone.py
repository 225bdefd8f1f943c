"""A copy of another node's data, streamed: `mariadb-backup` there, `mbstream` here.

Promises  The old data directory stands until the copy is whole, prepared and marked; a copy that
          broke off, or whose donor did not report success, is never used.
Assumes   Donor and receiver have the same major version of the server.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from primacy.engines import clone_wire as wire
from primacy.engines.api import Progress, ProgressSink
from primacy.engines.cloning import (
    Ends,
    admitted,
    asking,
    clone_door,
    end_stream,
    header,
    new_nonce,
)
from primacy.engines.mariadb.accounts import MAINTENANCE, login
from primacy.engines.mariadb.connection import Connection, Session, Target
from primacy.engines.mariadb.directory import Directory
from primacy.engines.mariadb.gtid import parse_list
from primacy.engines.mariadb.programs import running
from primacy.engines.mariadb.replica import Receiver
from primacy.engines.mariadb.rewinding import checksums_at_once
from primacy.engines.mariadb.server import LocalServer
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.errors import Conflict, PrimacyError, Rejected, Unavailable
from primacy.model import NodeId
from primacy.runtime.threads import to_its_end
from primacy.telemetry import Event, Sink, Value

CLONES_MAX = 1
"""At a time, for one donor: a backup costs it much of its disk."""
OK_WORDS = "completed OK!"
BINLOG_INFO = "xtrabackup_binlog_info"
PREPARE_S = 3600.0
"""Applying the redo log that was written during the backup."""


class Hello(wire.Hello, frozen=True, kw_only=True):
    """Of a node that wants a backup, or was rewound and compares."""

    compare: tuple[str, ...] = ()
    """Not a clone: the checksums of these tables at one position of the donor's log."""


class Checksums(msgspec.Struct, frozen=True, kw_only=True):
    """Of whole tables, as they were right after one transaction. They follow the header, or nothing
    does where they cannot be given."""

    gtid: str
    values: dict[str, int]


class CloneDoor:
    """The donor's side: gives a backup of the running server to whoever knows the secret."""

    def __init__(
        self,
        settings: MariaDbSettings,
        server: LocalServer,
        receiver: Receiver,
        events: Sink,
    ) -> None:
        self._settings = settings
        self._server = server
        self._receiver = receiver
        self._events = events
        self._clone_count = 0

    def open(self) -> AbstractAsyncContextManager[None]:
        """The door is open inside. `Rejected` where its port is taken."""
        node = self._settings.node
        address = self._settings.clone_doors[node]
        return clone_door(address, self._give, node=node, events=self._events)

    async def _give(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = _ends(self._settings)
        hello, challenge = await admitted(reader, writer, ends, Hello)
        total_bytes = await asyncio.to_thread(_size, self._settings.layout.data)
        await wire.send(writer, header(ends, hello, challenge, total_bytes=total_bytes))
        if hello.compare:
            self._tell("comparison-asked", receiver=hello.node, tables=len(hello.compare))
            await wire.send(writer, await self._checksums(hello.compare))
            return
        if self._clone_count >= CLONES_MAX:
            await end_stream(writer, words="another clone is under way")
            return
        self._clone_count += 1
        try:
            self._tell("clone-begun", receiver=hello.node, total_bytes=total_bytes)
            await self._stream(writer)
            self._tell("clone-given", receiver=hello.node)
        finally:
            self._clone_count -= 1

    async def _checksums(self, tables: tuple[str, ...]) -> Checksums:
        timing = self._settings.timing
        session = Session(
            "comparison",
            Target(
                login=login(self._settings.cluster_secret, MAINTENANCE),
                where=self._settings.layout.socket,
                connect_s=timing.connect_s,
                read_s=timing.clone_silence_s,
            ),
        )

        def ask(connection: Connection) -> tuple[str, dict[str, int]]:
            return checksums_at_once(connection, tables)

        try:
            gtid, values = await session.run(ask, within_s=timing.clone_silence_s)
        finally:
            session.reset()
        return Checksums(gtid=gtid, values=values)

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        options = await asyncio.to_thread(self._receiver.client_options)
        try:
            await self._check_history()
            throttle = await self._throttle()
        except PrimacyError as error:  # The server is down: the receiver is told so.
            await end_stream(writer, words=error.what)
            raise
        argv = [
            self._settings.programs.backup,
            f"--defaults-file={options}",
            "--backup",
            "--stream=mbstream",
            f"--target-dir={self._settings.layout.guard}",
            *throttle,
        ]
        async with running(argv, has_output=True) as backup:
            while piece := await backup.read(wire.PIECE_BYTES):
                await wire.send_piece(writer, piece)
            code = await backup.ended()
            is_ok = code == 0 and backup.words.endswith(OK_WORDS)
            words = "" if is_ok else f"code {code}: {backup.words}"
        try:
            if not is_ok:
                raise Unavailable(f"mariadb-backup failed: {words}", hint="The receiver knows.")
            await self._check_history()  # What was written meanwhile may be in the copy.
        except PrimacyError as error:
            await end_stream(writer, words=words or error.what)
            raise
        await end_stream(writer, words="")

    async def _check_history(self) -> None:
        """A copy of a replica that somebody wrote on would have it too, and no log of it."""
        status = await self._server.status()
        if status.errant:
            raise Conflict(
                status.errant_words,
                hint="That is saved and taken back first. Ask another node.",
            )

    async def _throttle(self) -> list[str]:
        """A primary has clients to serve; a replica that gives a clone has been taken out first."""
        limit = self._settings.clone_from_primary_mb_s
        is_primary = not (await self._server.status()).is_read_only
        return [f"--throttle={limit}"] if limit and is_primary else []

    def _tell(self, name: str, **fields: Value) -> None:
        self._events(Event(name, {"node": self._settings.node, **fields}))


async def fetch(
    settings: MariaDbSettings, directory: Directory, donor: NodeId, progress: ProgressSink
) -> str:
    """Fill `incoming` with a prepared copy of the donor's data; returns the GTID that it stands at.

    Cancelled or failed: `incoming` is of no use, and nothing else has changed.
    """
    door = settings.clone_doors.get(donor)
    if door is None or donor == settings.node:
        raise Rejected(f"{donor} is no donor for {settings.node}", hint="Name another data node.")
    incoming = await to_its_end(directory.clear_incoming)
    timing = settings.timing
    async with asking(door, _ends(settings), _hello(settings)) as (reader, _, total_bytes):
        argv = [settings.programs.unpack, "-x", "-C", str(incoming)]
        async with running(argv, has_input=True) as unpack:
            done_bytes = 0
            while piece := await wire.receive_piece(reader, within_s=timing.clone_silence_s):
                await unpack.write(piece)
                done_bytes += len(piece)
                progress(Progress("receiving", done_bytes, total_bytes))
            await unpack.succeeded()
        trailer = await wire.receive(reader, wire.Trailer, within_s=timing.peer_s)
        if not trailer.is_ok:
            raise Unavailable(f"the backup on {donor} failed: {trailer.words}", hint="Try again.")
    progress(Progress("preparing", done_bytes, done_bytes))
    await _prepare(settings, incoming)
    return await asyncio.to_thread(_gtid_of, incoming)


async def ask_checksums(
    settings: MariaDbSettings, donor: NodeId, tables: Sequence[str]
) -> Checksums:
    """Of another node's tables, at one position of its log."""
    hello = _hello(settings, compare=tuple(tables))
    async with asking(settings.clone_doors[donor], _ends(settings), hello) as (reader, _, _):
        within_s = settings.timing.clone_silence_s + 1.0
        return await wire.receive(reader, Checksums, within_s=within_s)


def _ends(settings: MariaDbSettings) -> Ends:
    return Ends(
        cluster=settings.cluster,
        node=settings.node,
        secret=settings.cluster_secret,
        peer_s=settings.timing.peer_s,
        silence_s=settings.timing.clone_silence_s,
    )


def _hello(settings: MariaDbSettings, *, compare: tuple[str, ...] = ()) -> Hello:
    return Hello(cluster=settings.cluster, node=settings.node, nonce=new_nonce(), compare=compare)


async def _prepare(settings: MariaDbSettings, incoming: Path) -> None:
    argv = [
        settings.programs.backup,
        "--no-defaults",
        "--prepare",
        f"--target-dir={incoming}",
    ]
    try:
        async with asyncio.timeout(PREPARE_S), running(argv) as prepare:
            await prepare.succeeded()
            if not prepare.words.endswith(OK_WORDS):
                raise Unavailable(f"the copy is not whole: {prepare.words}", hint="Try again.")
    except TimeoutError as error:
        raise Unavailable("preparing the copy took too long", hint="Try again.") from error


def _gtid_of(incoming: Path) -> str:
    """`binlog.000002  1234  0-1-42`; no third word where nothing was ever written."""
    try:
        words = (incoming / BINLOG_INFO).read_text(encoding="utf-8").split()
    except FileNotFoundError as error:
        raise Unavailable(
            "the copy does not say at which transaction it stands", hint="Try again."
        ) from error
    gtid = words[2] if len(words) > 2 else ""
    parse_list(gtid)  # `Corrupt` for anything else: it becomes a part of a statement.
    return gtid


def _size(data: Path) -> int:
    """Without logs, which a backup leaves out."""
    logs = ("binlog.", "relay.", "ib_logfile")
    return sum(
        each.stat().st_size
        for each in data.rglob("*")
        if each.is_file() and not each.name.startswith(logs)
    )
