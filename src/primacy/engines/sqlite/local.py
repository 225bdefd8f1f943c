"""The node's own server, as the engine's other parts ask it: the clone door, and a rewind."""

from collections.abc import Callable, Sequence
from pathlib import Path

from primacy.engines.sqlite import control
from primacy.engines.sqlite.client import ControlClient
from primacy.engines.sqlite.control import Copied, RoleNow, Shown, Sums
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.errors import Conflict
from primacy.model import Epoch, Incarnation, NodeId
from primacy.replication.log.record import Point

COPY_S = 24 * 3600.0
"""A copy, a rewind or a comparison takes as long as the database is large; who waits can cancel."""


class LocalServer:
    """Requests with the times that each may take."""

    def __init__(
        self,
        settings: SqliteSettings,
        client: ControlClient,
        incarnation: Callable[[], Incarnation | None],
    ) -> None:
        self._settings = settings
        self._timing = settings.timing
        self._client = client
        self._incarnation = incarnation

    async def shown(self) -> Shown:
        return await self._client.observe(within_s=self._timing.health_s)

    async def do(self, request: control.Request, *, within_s: float = 0.0) -> int:
        """`within_s`: what the request itself may take, beside a slow disk."""
        return await self._client.do(request, within_s=within_s + self._timing.command_s)

    async def follow(
        self, primary: NodeId, epoch: Epoch, *, acknowledge: bool = False, apply_until: int = 0
    ) -> None:
        """`Rejected` for a node that has no database."""
        self._settings.check_peer(primary)
        incarnation = self._incarnation()
        if incarnation is None:
            raise Conflict("there are no data of this node", hint="Observe again.")
        await self.do(
            control.Follow(
                upstream=primary,
                upstream_door=str(self._settings.pull_doors[primary]),
                leader_door=str(self._settings.doors[primary]),
                epoch=epoch,
                incarnation=incarnation,
                acknowledge=acknowledge,
                apply_until=apply_until,
            )
        )

    async def rest(self) -> int:
        """Receives and applies nothing more. Returns where the log ends."""
        return await self.do(control.Rest())

    async def applied(self) -> Point:
        return (await self.shown()).applied

    async def is_primary(self) -> bool:
        return (await self.shown()).role is RoleNow.REIGNING

    async def rewind(self, to: int) -> None:
        await self._client.do(control.Rewind(to=to), within_s=COPY_S)

    async def table_sums(self, tables: Sequence[str], at: int = 0) -> Sums:
        request = control.TableSums(tables=tuple(tables), at=at)
        return await self._client.sums(request, within_s=COPY_S)

    async def snapshot(self, name: str, path: Path, bytes_per_s: int) -> Copied:
        request = control.Snapshot(name=name, path=str(path), bytes_per_s=bytes_per_s)
        return await self._client.copied(request, within_s=COPY_S)

    async def release(self, name: str) -> None:
        await self.do(control.Release(name=name))
