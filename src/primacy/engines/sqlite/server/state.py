"""What a server is at this moment: may it take writes, what has it applied. Owned by the loop."""

import asyncio
from collections.abc import Callable

from primacy.clock import Clock
from primacy.engines.sqlite.protocol import ServerRole
from primacy.engines.sqlite.server.pipeline import Pipeline
from primacy.engines.sqlite.tokens import NO_TOKEN, Token, token_in
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, NodeId
from primacy.replication.gtid import Gtid
from primacy.replication.log.record import Point

Permits = Callable[[int], bool]


class ServerState:
    """Shared by all sessions."""

    def __init__(
        self,
        node: NodeId,
        *,
        applied: Point,
        gtid_of: Callable[[int], Gtid],
        permits: Permits,
        clock: Clock,
    ) -> None:
        self.node = node
        self.leader = ""
        self.pipeline: Pipeline | None = None
        """There is one while the doors are open for writes."""
        self.epoch = Epoch(0)
        """Of the reign; 0 where this is no primary."""
        self.applied = applied
        self.staleness_s: Callable[[], float | None] | None = None
        """How old what readers see is at most; None: nobody knows."""
        self.heartbeat = 0
        """The number of the newest heartbeat that was applied since the start; 0: none yet."""
        self.heartbeat_at_s = clock.now_s()
        self._gtid_of = gtid_of
        self._permits = permits
        self._clock = clock
        self._waiting: dict[asyncio.Future[None], int] = {}

    @property
    def role(self) -> ServerRole:
        return ServerRole.PRIMARY if self.pipeline is not None else ServerRole.REPLICA

    def may_answer(self) -> bool:
        """The deadline page, before each answer of a primary. A replica's answers are old at any
        time, and say how old."""
        return self.epoch == 0 or self._permits(self.epoch)

    def on_applied(self, point: Point) -> None:
        """Readers see everything up to here."""
        self.applied = point
        if self._waiting:
            for future, index in list(self._waiting.items()):
                if index <= point.index and not future.done():
                    future.set_result(None)

    def on_heartbeat(self, number: int) -> None:
        """It is applied here."""
        if number > self.heartbeat:
            self.heartbeat, self.heartbeat_at_s = number, self._clock.now_s()

    def token(self) -> str:
        """What a read that begins now sees at least. Empty: nothing was ever written."""
        return str(self._gtid_of(self.applied.index)) if self.applied.index else ""

    async def wait_for(self, after: str, *, deadline_s: float) -> None:
        """Until a read sees the token's transaction. `Unavailable` at the deadline; `Conflict`: the
        transaction is not in this history."""
        token = token_in(after)
        if token == NO_TOKEN:
            return
        if token.place > self.applied.index:
            await self._until(token, deadline_s)
        found = str(self._gtid_of(token.place))
        if found != after:
            raise Conflict(
                f"{after} is not in this history: record {token.place} is {found}",
                hint="That transaction was given up in a failover. Forget the token.",
            )

    async def _until(self, token: Token, deadline_s: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = token.place
        left_s = deadline_s - self._clock.now_s()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await future
        except TimeoutError as error:
            raise Unavailable(
                f"{token} is not applied on {self.node}, which is at {self.applied.position}",
                hint="The replica lags: ask another one, or the primary.",
            ) from error
        finally:
            del self._waiting[future]

    def check_fresh(self, fresh_ms: int | None) -> None:
        """`Unavailable`: the data may be older than that."""
        if fresh_ms is None or self.role is ServerRole.PRIMARY:
            return
        age_s = self.staleness_s() if self.staleness_s is not None else None
        if age_s is None or age_s * 1000 > fresh_ms:
            known = "not known" if age_s is None else f"up to {age_s * 1000:.0f} ms"
            raise Unavailable(
                f"how old the data of {self.node} is: {known}, at most {fresh_ms} ms are asked for",
                hint="Ask another server.",
            )
