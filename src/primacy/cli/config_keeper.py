"""Keeps this host's configuration file as the cluster has agreed: written beside, then renamed.

    operator --apply--> store: ConfigRecord --watch--> each host's keeper --> primacy.toml
                                                             |
                        store: ConfigSeen of each node <-----+

Promises  A file is replaced only where it is the very one that the change was made from, by a text
          that passes every rule here, and that changes nothing a running cluster cannot take over.
          The one before stays beside it as `.previous`.
Does not  Restart anything: a process reads its file when it starts.
"""

import asyncio
import fcntl
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from primacy.clock import Clock
from primacy.config import Config, Problem, parse
from primacy.config.changes import digest, refusals
from primacy.coordination.api import Put, Store, Txn
from primacy.errors import PrimacyError
from primacy.model import NodeId, Revision
from primacy.replication.records import (
    CONFIG_KEY,
    CONFIG_SEEN_PREFIX,
    ConfigRecord,
    ConfigSeen,
    decoded,
    encoded,
    node_key,
)
from primacy.runtime.files import replace_file
from primacy.telemetry import Event, Sink, Value

AGAIN_AFTER_S = 1.0
PREVIOUS = ".previous"


class ConfigKeeper:
    """`run` it in a task of the owner, on witnesses too."""

    def __init__(
        self, path: Path, node: NodeId, life: str, *, store: Store, clock: Clock, events: Sink
    ) -> None:
        """`life` names this process."""
        self._path = path
        self._node = node
        self._life = life
        self._store = store
        self._clock = clock
        self._events = events
        self._running = digest(_read(path))

    async def run(self) -> None:
        while True:
            try:
                found = await self._store.range(CONFIG_KEY)
                problem = ""
                if found.items:
                    problem = await self._consider(decoded(ConfigRecord, found.items[0].value))
                await self._say(problem)
                await self._follow(Revision(found.revision + 1))
            except (PrimacyError, msgspec.ValidationError) as error:
                self._events(Event("config-not-followed", {"reason": str(error)}))
                await self._clock.sleep(AGAIN_AFTER_S)

    async def _follow(self, revision: Revision) -> None:
        async with self._store.watch(CONFIG_KEY, from_revision=revision) as batches:
            async for batch in batches:
                for change in batch.changes:
                    if change.after is not None:
                        record = decoded(ConfigRecord, change.after.value)
                        await self._say(await self._consider(record))

    async def _consider(self, record: ConfigRecord) -> str:
        """Takes it over; or says why not."""
        try:
            is_new, problem = await asyncio.to_thread(take_over, self._path, record)
        except OSError as error:
            is_new, problem = False, f"{self._path} cannot be written: {error.strerror}"
        fields: dict[str, Value] = {"version": record.version, "path": str(self._path)}
        if problem:
            self._events(Event("config-not-applied", fields | {"reason": problem}))
        elif is_new:
            self._events(Event("config-applied", fields))
        return problem

    async def _say(self, problem: str) -> None:
        here = await asyncio.to_thread(_read, self._path)
        seen = ConfigSeen(
            node=self._node,
            file=digest(here),
            running=self._running,
            agent=self._life,
            problem=problem,
        )
        key = node_key(CONFIG_SEEN_PREFIX, self._node)
        await self._store.txn(Txn(then=(Put(key, encoded(seen)),)))


def take_over(path: Path, record: ConfigRecord) -> tuple[bool, str]:
    """Whether the file was replaced, and why it could not be. Blocks; raises `OSError`."""
    with _alone_in(path.parent):
        return _take_over(path, record)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Where all nodes are on one machine they share one file, and are told of a change at once."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _take_over(path: Path, record: ConfigRecord) -> tuple[bool, str]:
    here = _read(path)
    if digest(here) == record.digest:
        return False, ""
    if digest(here) != record.base:
        return False, (
            f"{path} is not the file that the change was made from: it is left alone. Compare it"
            " with the others' and apply again"
        )
    before, after = parsed(here, path.parent)[0], parsed(record.text, path.parent)
    problems = after[1]
    if before is not None and after[0] is not None:
        problems += refusals(before, after[0])
    if before is None or after[0] is None or problems or digest(record.text) != record.digest:
        return False, "; ".join(map(str, problems)) or "the text or the file cannot be read"
    _replace(path, record.text)
    return True, ""


def parsed(text: str, directory: Path) -> tuple[Config | None, list[Problem]]:
    try:
        return parse(tomllib.loads(text), directory)
    except ValueError as error:
        return None, [Problem("file", "", f"not TOML: {error}")]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, with the mode and owner of the one before, which stays beside it."""
    was = path.stat()
    shutil.copy2(path, path.with_name(path.name + PREVIOUS))
    owner = (was.st_uid, was.st_gid) if os.geteuid() == 0 else None
    replace_file(path, [text.encode()], mode=was.st_mode & 0o7777, owner=owner)
