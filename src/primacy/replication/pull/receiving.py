"""A node's receiver: pulls the log of an upstream into its own, until it is told to stop.

Promises  One fdatasync for all that came while the last one ran; what it made durable, and nothing
          else, is reported. When `stop` returns nothing more is written or reported, and it has
          returned how far the log durably goes.
Assumes   One event loop, and nobody else who appends to the log meanwhile. The node has noted
          "below this epoch refused" before `follow`.
Does not  Apply. Cut or save a log that has parted from its upstream's: it says where, and rests.

    STOPPED --follow--> CONNECTING <--lost--> STREAMING
       ^                    |   ^
       |                    |   +--slow retry-- REJECTED
       +-------stop---------+------------------ DIVERGED, PURGED (rest until `stop`)
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import assert_never

from primacy import telemetry
from primacy.clock import Clock
from primacy.errors import Conflict
from primacy.model import Address, Epoch, NodeId
from primacy.replication.log.record import ORIGIN_POINT, Point
from primacy.replication.pull.lag import LEVEL, Lag
from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.messages import Beat, Hop, Refusal, Welcome
from primacy.replication.pull.pausing import Pauses
from primacy.replication.pull.pulling import LogWriter, OnGrowth, Pull, ReceivedLog
from primacy.replication.pull.receiver import (
    Applied,
    Ending,
    Following,
    HasParted,
    IsBehind,
    Lost,
    ReceiverSession,
    Switched,
    TurnedAway,
    WasPurged,
)
from primacy.replication.pull.source import Reign
from primacy.runtime.proofs import NONCE_BYTES
from primacy.telemetry import Event, Sink


class ReceiverState(Enum):
    """What an operator sees."""

    STOPPED = "it follows nobody"
    CONNECTING = "it tries to reach its upstream"
    STREAMING = "it receives"
    REJECTED = "it is turned away: it tries again, slowly"
    DIVERGED = "its log holds what the upstream's history does not"
    PURGED = "its upstream no longer has what follows its log"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverStatus:
    """One look at a receiver."""

    state: ReceiverState = ReceiverState.STOPPED
    reason: str = ""
    refusal: Refusal | None = None
    epoch: Epoch = Epoch(0)
    upstream: NodeId | None = None
    received: Point = ORIGIN_POINT
    """Durable."""
    applied: Point = ORIGIN_POINT
    acknowledges: bool = False
    source_end: Point = ORIGIN_POINT
    lag: Lag = LEVEL
    """Behind the upstream, by the upstream's clock."""
    heard_at_s: float = 0.0
    """On the monotonic clock: when the upstream last said where it ends."""
    path: tuple[Hop, ...] = ()
    """From the primary to this node, with the lag of each hop; empty before the first welcome."""
    parted: HasParted | None = None
    """Where the two logs part; only while DIVERGED."""
    purged: Point | None = None
    """Where the upstream's log begins; only while PURGED."""


@dataclass(frozen=True, slots=True)
class _Target:
    following: Following
    address: Address


class Receiver:
    """`async with`, then `follow` and `stop` as often as one likes. All from one event loop.

    Leaving the block stops it. A failure of the disk leaves it too, as an ExceptionGroup."""

    def __init__(  # noqa: PLR0913 - all that a receiver is made of, once
        self,
        log: ReceivedLog,
        *,
        clock: Clock,
        chance: random.Random,
        on_growth: OnGrowth,
        on_durable: Callable[[Point], None],
        on_reign: Callable[[Reign], None],
        events: Sink = telemetry.ignore,
        limits: PullLimits | None = None,
    ) -> None:
        """`on_durable`: an applier may take what is up to there. `on_reign`: this log is a prefix
        of the history of that epoch, and came by that path: a door may serve it."""
        self._log = log
        self._clock = clock
        self._chance = chance
        self._on_growth = on_growth
        self._on_durable = on_durable
        self._on_reign = on_reign
        self._events = events
        self._limits = limits or PullLimits()
        self._status = ReceiverStatus()
        self._acknowledges = False
        self._applied = ORIGIN_POINT
        self._target: _Target | None = None
        self._pull: Pull | None = None
        self._task: asyncio.Task[None] | None = None
        self._tasks = asyncio.TaskGroup()
        self._writer = LogWriter()

    async def __aenter__(self) -> "Receiver":
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        finally:
            try:
                await self._tasks.__aexit__(kind, error, trace)
            finally:
                self._writer.close()

    # ---- the owner's side --------------------------------------------------------------------

    async def follow(self, following: Following, address: Address, *, acknowledge: bool) -> None:
        """Pull from `address` until `stop`. The same again changes only `acknowledge`; another one
        stops the one before. `Conflict` below the epoch that was followed before."""
        target = _Target(following, address)
        known = self._target
        if known is not None and following.epoch < known.following.epoch:
            raise Conflict(
                f"epoch {following.epoch} is over: {known.following.epoch} was followed already",
                hint="An epoch never returns.",
            )
        if self._task is not None and not self._task.done() and target == known:
            self.acknowledge(wanted=acknowledge)
            return
        await self.stop()
        self._target = target
        self._acknowledges = acknowledge
        self._status = ReceiverStatus(
            state=ReceiverState.CONNECTING,
            epoch=following.epoch,
            upstream=following.upstream,
        )
        self._task = self._tasks.create_task(self._keep_following(target), name="pull")

    async def stop(self) -> Point:
        """Returns how far the log durably goes, when nothing of it can change any more."""
        task, self._task = self._task, None
        if self._pull is not None:
            self._pull.silence()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._writer.idle()
        await self._sync()
        self._status = ReceiverStatus(epoch=self._status.epoch)
        return self._log.durable

    def acknowledge(self, *, wanted: bool) -> None:
        """Whether what is received counts as an acknowledgement at the upstream, from now on."""
        if wanted != self._acknowledges:
            self._acknowledges = wanted
            if self._pull is not None:
                self._pull.step(Switched(wanted))

    def applied(self, point: Point) -> None:
        """The database has everything up to `point`, durably."""
        self._applied = point
        if self._pull is not None:
            self._pull.step(Applied(point))

    @property
    def status(self) -> ReceiverStatus:
        known, durable = self._status, self._log.durable
        missing = known.source_end.index - durable.index
        return replace(
            known,
            received=durable,
            applied=self._applied,
            lag=replace(known.lag, transactions=missing) if missing > 0 else LEVEL,
            acknowledges=self._acknowledges and known.state is not ReceiverState.STOPPED,
        )

    # ---- following ---------------------------------------------------------------------------

    async def _keep_following(self, target: _Target) -> None:
        pauses = Pauses(self._limits)
        while True:
            ending = await self._follow_once(target)
            if self._status.state is ReceiverState.STREAMING:
                pauses.streamed()
            if not self._goes_on(ending):
                return
            await self._clock.sleep(pauses.after(ending) * (0.5 + self._chance.random()))

    def _goes_on(self, ending: Ending) -> bool:
        """Shows how the session ended. False: trying again cannot help."""
        name = self._status.upstream
        match ending:
            case Lost(reason):
                self._show(ReceiverState.CONNECTING, reason)
            case IsBehind(source_end):
                reason = f"{name} ends at {source_end.position}, this log at "
                self._show(ReceiverState.CONNECTING, f"{reason}{self._log.end.position}: it waits")
            case TurnedAway(refusal, reason):
                self._show(ReceiverState.REJECTED, reason)
                self._status = replace(self._status, refusal=refusal)
            case HasParted(common, own_end, source_end):
                where = "nothing that is kept" if common is None else str(common.position)
                reason = f"this log ({own_end.position}) and that of {name} ({source_end.position})"
                self._show(ReceiverState.DIVERGED, f"{reason} share {where}")
                self._status = replace(self._status, parted=ending)
            case WasPurged(first):
                reason = f"{name} has removed everything up to {first.position}, this log ends at "
                self._show(ReceiverState.PURGED, f"{reason}{self._log.end.position}")
                self._status = replace(self._status, purged=first)
            case _:
                assert_never(ending)
        return not isinstance(ending, HasParted | WasPurged)

    async def _follow_once(self, target: _Target) -> Ending:
        """One connection, from the first attempt to its end."""
        log = self._log
        await self._writer.idle()
        await self._sync()
        session = ReceiverSession(
            target.following,
            nonce=secrets.token_hex(NONCE_BYTES),
            point=log.durable,
            applied=self._applied,
            acknowledges=self._acknowledges,
            limits=self._limits,
            now_s=self._clock.now_s(),
        )
        self._pull = Pull(
            session,
            log,
            self._writer,
            clock=self._clock,
            limits=self._limits,
            on_growth=self._on_growth,
            on_durable=self._on_durable,
            on_news=self._on_news,
        )
        try:
            return await self._pull.run(target.address.host, target.address.port)
        finally:
            self._pull.silence()
            self._pull = None

    async def _sync(self) -> None:
        """What a broken batch has left behind its beginning is made durable, like all else."""
        if self._log.durable != self._log.end:
            self._on_durable(await self._writer.run(self._log.sync))

    def _on_news(self, news: Welcome | Beat) -> None:
        """The source has welcomed this node, or says where it ends now."""
        own = self._target
        if own is None:
            return
        end = self._log.end
        missing = max(0, news.end.index - end.index)
        lag = Lag(missing)
        match news:
            case Welcome():
                self._show(ReceiverState.STREAMING, "")
            case Beat():
                lag = Lag(missing, news.size_bytes, news.delay_s) if missing else LEVEL
        hop = Hop(own.following.node, lag.transactions, lag.size_bytes, lag.delay_s)
        self._status = replace(
            self._status,
            source_end=news.end,
            lag=lag,
            heard_at_s=self._clock.now_s(),
            path=(*news.path, hop),
        )
        self._on_reign(Reign(own.following.epoch, self._status.path))

    def _show(self, state: ReceiverState, reason: str) -> None:
        """Told once for each change."""
        known = self._status
        if (known.state, known.reason) != (state, reason):
            fields: dict[str, telemetry.Value] = {
                "state": state.name.lower(),
                "upstream": known.upstream,
                "epoch": known.epoch,
                "end": str(self._log.end.position),
            }
            self._events(Event("pull-state", fields | ({"why": reason[:300]} if reason else {})))
        self._status = replace(
            known, state=state, reason=reason, refusal=None, parted=None, purged=None
        )
