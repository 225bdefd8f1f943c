"""MariaDB for the suite: the nodes of its own integration tests, five of them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
from tests.conformance.engine.harness import MEMBERS, SPARES, Answer, Rubbish
from tests.integration.mariadb.conftest import Trio, make_template

from primacy.engines.api import Engine
from primacy.engines.mariadb.accounts import Login
from primacy.engines.mariadb.connection import rows
from primacy.engines.mariadb.settings import MariaDbSettings, Timing
from primacy.engines.notes import NoteFile
from primacy.errors import Conflict, PrimacyError, Rejected
from primacy.model import NodeId, Position

APP = Login("app", "app")
TABLE = "shop.t"
TIMING = Timing(health_s=1.0, drain_s=10.0, stop_s=10.0, command_s=5.0)


class MariaDbHarness:
    """See the protocol. Rows are the keys of `shop.t`."""

    why_applier_cannot_be_held = ""

    def __init__(self, root: Path) -> None:
        self._template = root / "template"
        self._rubbish = Rubbish(root)
        self._nodes = Trio(root, self._template, (*MEMBERS, *SPARES), TIMING)
        self.observed_within_s = 2 * self._settings(MEMBERS[0]).timing.health_s

    async def make_template(self) -> None:
        """What every other node is made from."""
        node = MEMBERS[0]
        await make_template(self._nodes[node])
        self.data(node).rename(self._template)
        await self.wipe(node)

    def engine(self, node: NodeId) -> Engine:
        return self._nodes[node].engine

    def restart_agent(self, node: NodeId) -> None:
        self._nodes[node].restart_agent()

    async def make(self, node: NodeId) -> None:
        self._nodes.make(node)

    async def wipe(self, node: NodeId) -> None:
        await self._nodes[node].engine.kill()
        self._nodes[node].settings.page.unlink(missing_ok=True)
        if self.root(node).exists():
            await self._rubbish.throw(self.root(node))
        self._nodes[node].restart_agent()

    def root(self, node: NodeId) -> Path:
        return self._settings(node).layout.root

    def data(self, node: NodeId) -> Path:
        return self._settings(node).layout.data

    def pid(self, node: NodeId) -> int:
        return self._nodes[node].pid

    async def publish_more(self, node: NodeId, count: int) -> None:
        notes = NoteFile(self._settings(node).layout.notes)
        said = notes.notes.published
        more = Position(said.epoch, said.sequence + count)
        notes.save(msgspec.structs.replace(notes.notes, published=more))
        self.restart_agent(node)
        await self.engine(node).attach()

    def serving(self, node: NodeId) -> AbstractAsyncContextManager[None]:
        return self._nodes[node].engine.serve()

    @asynccontextmanager
    async def applier_held(self, node: NodeId) -> AsyncIterator[None]:
        holder = self._nodes[node].session()
        await holder.run(lambda c: rows(c, f"LOCK TABLES {TABLE} WRITE"), within_s=10)
        try:
            yield
        finally:
            holder.reset()

    async def define(self, node: NodeId) -> None:
        for statement in (
            "CREATE USER app@'%' IDENTIFIED BY 'app'",
            "CREATE DATABASE shop",
            "GRANT ALL ON shop.* TO app@'%'",
            f"CREATE TABLE {TABLE} (id BIGINT PRIMARY KEY) ENGINE=InnoDB",
        ):
            await self._nodes[node].sql(statement)

    async def change(self, node: NodeId, statement: str) -> None:
        await self._nodes[node].sql(statement.format(t=TABLE))

    async def write(self, node: NodeId, row: int, *, within_s: float) -> Answer:
        session = self._nodes[node].session(APP)
        try:
            await session.run(
                lambda c: rows(c, f"INSERT INTO {TABLE} VALUES (%s)", row), within_s=within_s
            )
        except (Conflict, Rejected):
            return Answer.REFUSED
        except PrimacyError:
            return Answer.UNKNOWN
        finally:
            session.reset()
        return Answer.ACKNOWLEDGED

    async def read(self, node: NodeId) -> Sequence[int]:
        found = await self._nodes[node].sql(f"SELECT id FROM {TABLE} ORDER BY id")
        return [int(str(row["id"])) for row in found]

    async def close(self) -> None:
        for node in (*MEMBERS, *SPARES):
            await self.wipe(node)
        await self._rubbish.gone()

    def _settings(self, node: NodeId) -> MariaDbSettings:
        return self._nodes[node].settings
