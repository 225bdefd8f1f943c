"""SQLite for the suite: the nodes of its own integration tests, five of them."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
from tests.conformance.engine.harness import MEMBERS, SPARES, Answer
from tests.integration.sqlite.trio import Node, Trio

import primacy.driver as db
from primacy.engines.api import Engine
from primacy.engines.notes import NoteFile
from primacy.engines.sqlite.directory import database_in
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.model import NodeId, Position

TABLE = "t"
CONNECTS_WITHIN_S = 2.0


class SqliteHarness:
    """See the protocol. Rows are the keys of `t`."""

    why_applier_cannot_be_held = ""

    def __init__(self, root: Path) -> None:
        self._nodes = Trio(root, (*MEMBERS, *SPARES))
        self.observed_within_s = self._settings(MEMBERS[0]).timing.health_s

    def engine(self, node: NodeId) -> Engine:
        return self._node(node).engine

    def restart_agent(self, node: NodeId) -> None:
        self._node(node).restart_agent()

    async def make(self, node: NodeId) -> None:
        await self.engine(node).initialise()

    async def wipe(self, node: NodeId) -> None:
        await self.engine(node).kill()
        self._settings(node).page.unlink(missing_ok=True)
        if self.root(node).exists():
            await asyncio.to_thread(shutil.rmtree, self.root(node))
        self.restart_agent(node)

    def root(self, node: NodeId) -> Path:
        return self._settings(node).layout.root

    def data(self, node: NodeId) -> Path:
        return self._settings(node).layout.data

    def pid(self, node: NodeId) -> int:
        return self._node(node).pid

    async def publish_more(self, node: NodeId, count: int) -> None:
        notes = NoteFile(self._settings(node).layout.notes)
        said = notes.notes.published
        more = Position(said.epoch, said.sequence + count)
        notes.save(msgspec.structs.replace(notes.notes, published=more))
        self.restart_agent(node)
        await self.engine(node).attach()

    def serving(self, node: NodeId) -> AbstractAsyncContextManager[None]:
        return self._node(node).engine.serve()

    @asynccontextmanager
    async def applier_held(self, node: NodeId) -> AsyncIterator[None]:
        """For as long as SQLite waits for a lock: then the replica says that it cannot apply."""
        path = database_in(self.data(node), self._settings(node).database)
        holder = sqlite3.connect(path, isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            yield
        finally:
            holder.close()

    async def define(self, node: NodeId) -> None:
        await self.change(node, "CREATE TABLE {t} (id INTEGER PRIMARY KEY)")

    async def change(self, node: NodeId, statement: str) -> None:
        await self._node(node).write(statement.format(t=TABLE))

    async def write(self, node: NodeId, row: int, *, within_s: float) -> Answer:
        try:
            connection = await self._node(node).connect(
                f"target=any&timeout_s={within_s}&connect_timeout_s={CONNECTS_WITHIN_S}"
            )
        except db.Unavailable:
            return Answer.REFUSED
        try:
            await connection.execute(f"INSERT INTO {TABLE} VALUES (?)", (row,))
        except (db.Unavailable, db.Conflict):
            return Answer.REFUSED
        except db.OutcomeUnknown:
            return Answer.UNKNOWN
        finally:
            await connection.close()
        return Answer.ACKNOWLEDGED

    async def read(self, node: NodeId) -> Sequence[int]:
        connection = await self._node(node).connect("target=any")
        try:
            cursor = await connection.execute(f"SELECT id FROM {TABLE} ORDER BY id")
            return [int(row[0]) for row in await cursor.fetchall()]
        finally:
            await connection.close()

    async def close(self) -> None:
        for node in (*MEMBERS, *SPARES):
            await self.wipe(node)

    def _node(self, node: NodeId) -> Node:
        return self._nodes[node]

    def _settings(self, node: NodeId) -> SqliteSettings:
        return self._node(node).settings
