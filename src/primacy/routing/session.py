"""One client's connection, from the door to its end.

    held --a route stands--> connecting --connected--> greeting --first byte--> passing --> ended
      ^                          | failed                 | closed without a byte
      +--------------------------+------------------------+        past hold_s: refused, in words

Until a server's first byte has passed, the client has seen nothing, so another server may be
tried without its knowledge. From then on the connection lives and dies with that one server.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from primacy.clock import Clock
from primacy.model import Address, Epoch, NodeId
from primacy.routing.pipe import ClientSide, ServerSide, Why
from primacy.routing.proxyprotocol import Ends, Forwarded, encode
from primacy.routing.route import (
    Destination,
    Hold,
    Intent,
    Question,
    Refuse,
    RoutePolicy,
    ToDatabase,
    ToPeer,
    is_confirmed,
    is_switching,
    route,
    why_cut,
)
from primacy.routing.view import RouterView
from primacy.routing.words import Refusal, Words
from primacy.telemetry import Event, Sink

CONNECT_TIMEOUT_S = 2.0
RETRY_FIRST_S = 0.02
RETRY_MAX_S = 0.5
"""A server that refused or closed is asked again after so long; at once when the view changes."""
PAGE_LOOK_S = 0.01
"""The deadline page is memory and tells nobody when it opens: it is looked at so often, and only
while a connection waits for exactly that."""


class Permits(Protocol):
    """The deadline page of this host."""

    def permits(self, epoch: int) -> bool:
        """Whether an answer given under `epoch` may pass at this moment."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every session of a router shares."""

    here: NodeId
    policy: RoutePolicy
    hold_s: float
    send_proxy_header: bool
    words: Words
    databases: dict[NodeId, Address]
    peer_doors: dict[NodeId, Address]
    permits: Permits
    clock: Clock
    events: Sink
    view: Callable[[], RouterView]
    next_turn: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the connection came in."""

    intent: Intent
    ends: Ends
    forwarded: Forwarded | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. At most one of the reasons is set."""

    refused: str | None = None
    cut: str | None = None


class Session:
    """Owned by one task, which runs `run` to its end. `review` may be called at any moment."""

    def __init__(self, client: ClientSide, arrival: Arrival, around: Surroundings) -> None:
        self._client = client
        self._arrival = arrival
        self._around = around
        self._news = asyncio.Event()
        self._server: ServerSide | None = None
        self._destination: Destination | None = None
        self._is_withheld = False
        self._cut: str | None = None
        self._avoid: set[NodeId] = set()
        self._trouble = ""
        self.was_held = False
        """No database was open to it when it came."""
        self.is_passing = False
        """A server has answered. Before that the connection is held."""

    @property
    def byte_counts(self) -> tuple[int, int]:
        """From the client, and to it."""
        return self._client.byte_count, self._server.byte_count if self._server else 0

    def wake(self) -> None:
        self._news.set()

    def review(self) -> None:
        """The view has changed, or has become old: cut at once what may not go on."""
        self._news.set()
        if self._destination is None:
            return
        view, now_s = self._around.view(), self._now_s()
        reason = why_cut(self._destination, view, self._around.policy, now_s=now_s)
        if reason is not None and self.is_passing:
            self._cut_now(reason)
        elif self._destination.epoch is not None and is_switching(view, now_s=now_s):
            self._client.hold(Why.SWITCHOVER)
        else:
            self._client.release(Why.SWITCHOVER)

    async def run(self) -> Outcome:
        try:
            refused = await self._reach()
            if refused is None:
                await self._until_ended()
                return Outcome(cut=self._cut)
            self._refuse(refused)
            return Outcome(refused=refused)
        finally:
            if self._server is not None:
                self._server.close()
            self._client.close()

    async def _reach(self) -> str | None:
        """Until a server has answered or the client has left: None. Else why there is none."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._around.hold_s
        pause_s = RETRY_FIRST_S
        while not self._client.is_gone:
            self._news.clear()
            view = self._around.view()
            found = route(self._question(), view, self._around.policy, now_s=self._now_s())
            match found:
                case Refuse(reason):
                    return reason
                case Hold(reason):
                    wait_until_s = deadline_s
                    self._note_hold(reason)
                case ToDatabase() if not self._is_permitted(found):
                    self._note_hold(f"{found.node} is opening epoch {found.epoch}")
                    wait_until_s = loop.time() + PAGE_LOOK_S
                case ToDatabase() | ToPeer():
                    if await self._try(found, deadline_s):
                        return None
                    changed = self._around.view() is not view
                    wait_until_s = loop.time() + (0.0 if changed else pause_s)
                    pause_s = min(pause_s * 2, RETRY_MAX_S)
                case _:
                    assert_never(found)
            if loop.time() >= deadline_s:
                return self._trouble
            await self._news_until(min(wait_until_s, deadline_s))
        return None

    def _note_hold(self, reason: str) -> None:
        self._trouble = reason
        if not self.was_held:
            self.was_held = True
            fields = {"intent": self._arrival.intent.value, "reason": reason}
            self._around.events(Event("router-held", {**fields}))

    async def _try(self, found: Destination, deadline_s: float) -> bool:
        """Connect and wait for the first byte. True: passing, or the client has left."""
        self._destination, self._is_withheld = found, False
        server = ServerSide(self)
        self._server = server
        async with asyncio.TaskGroup() as tasks:
            connecting = tasks.create_task(self._connect(server, found))
            connecting.add_done_callback(lambda _: self.wake())
            while True:
                self._news.clear()
                is_over = server.has_answered or server.is_gone or self._must_give_up(deadline_s)
                if is_over or (connecting.done() and not server.is_open):
                    break
                await self._news_until(deadline_s)
            if not server.has_answered:  # Else it is about to return, and may not be undone.
                connecting.cancel()
        if server.has_answered:
            self.review()
            return True
        self._client.part()
        server.abort()
        self._server = self._destination = None
        self._client.release(Why.SWITCHOVER)
        if found.epoch is None:
            self._avoid.add(found.node)
        return self._client.is_gone

    def _must_give_up(self, deadline_s: float) -> bool:
        if self._client.is_gone or self._is_withheld or self._destination is None:
            return True
        if asyncio.get_running_loop().time() >= deadline_s:
            self._trouble = f"{self._destination.node} accepts connections and does not answer"
            return True
        view, now_s = self._around.view(), self._now_s()
        if self._destination.epoch is not None and is_switching(view, now_s=now_s):
            self._trouble = f"a switchover from {self._destination.node} is under way"
            return True
        reason = why_cut(self._destination, view, self._around.policy, now_s=now_s)
        self._trouble = reason or self._trouble
        return reason is not None

    async def _connect(self, server: ServerSide, found: Destination) -> None:
        address = self._address_of(found)
        if address is None:
            self._trouble = f"{found.node} is not in this router's configuration"
            return
        self._trouble = f"{found.node} closed the connection before it answered"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(lambda: server, address.host, address.port)
        except TimeoutError:
            self._trouble = f"{found.node} ({address}) does not accept connections"
        except OSError as error:
            self._trouble = f"{found.node} ({address}) cannot be reached: {error}"

    def on_connected(self, server: ServerSide) -> None:
        if self._server is server and self._destination is not None:
            self._client.join(server, self._preface(self._destination))
        else:
            server.abort()

    def _address_of(self, found: Destination) -> Address | None:
        match found:
            case ToDatabase(node, _):
                return self._around.databases.get(node)
            case ToPeer(node, _):
                return self._around.peer_doors.get(node)
            case _:
                assert_never(found)

    def _preface(self, found: Destination) -> bytes:
        """What is said before the client's own bytes: who the client is."""
        ends = self._arrival.ends
        match found:
            case ToDatabase():
                return encode(ends) if self._around.send_proxy_header else b""
            case ToPeer(_, epoch):
                intent = Intent.RO if epoch is None else Intent.RW
                return encode(ends, Forwarded(intent, epoch or Epoch(0)))
            case _:
                assert_never(found)

    async def _until_ended(self) -> None:
        """Passing, until both ends are gone."""
        while not self._client.is_gone or (self._server and not self._server.is_gone):
            await self._news.wait()
            self._news.clear()

    def _is_permitted(self, found: Destination) -> bool:
        match found:
            case ToDatabase(_, epoch):
                return epoch is None or self._around.permits.permits(epoch)
            case ToPeer(_, None):
                return True
            case ToPeer():  # The page is the peer's to read; the age of the view is ours.
                view = self._around.view()
                return is_confirmed(view, self._around.policy, now_s=self._now_s())
            case _:
                assert_never(found)

    def may_pass(self) -> bool:
        return self._destination is not None and self._is_permitted(self._destination)

    def on_answered(self) -> None:
        self.is_passing = True
        self._client.settle()
        self.wake()

    def on_withheld(self) -> None:
        self._is_withheld = True
        if self.is_passing:
            self._cut_now("the deadline page does not permit its epoch any more")
        self.wake()

    def _cut_now(self, reason: str) -> None:
        self._cut = self._cut or reason
        self._client.abort()
        if self._server is not None:
            self._server.abort()

    def _refuse(self, reason: str) -> None:
        """In words to a client. A peer router hears nothing and asks its own view again."""
        if self._arrival.forwarded is None:
            text = f"primacy: no database for {self._around.hold_s:.1f} s: {reason}"
            self._client.write(self._around.words(Refusal.NO_DATABASE, text))
        self._client.close()

    def _question(self) -> Question:
        forwarded = self._arrival.forwarded
        return Question(
            here=self._around.here,
            intent=self._arrival.intent,
            is_forwarded=forwarded is not None,
            asked_epoch=forwarded.epoch if forwarded is not None else Epoch(0),
            turn=self._around.next_turn() if self._arrival.intent is Intent.RO else 0,
            avoid=frozenset(self._avoid),
        )

    def _now_s(self) -> float:
        return self._around.clock.boottime_s()

    async def _news_until(self, until_s: float) -> None:
        """Wait for news since the last `clear`, on the loop's clock at most until then."""
        try:
            async with asyncio.timeout_at(until_s):
                await self._news.wait()
        except TimeoutError:
            return
