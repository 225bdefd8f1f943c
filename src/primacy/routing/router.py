"""The router's process: it watches the store, keeps one view, and owns the doors.

    store --watch--> view --review--> every open session
      ^---- a linearizable read of the primary's key each ttl/4 confirms the view

Promises: rw is closed, and its sessions are cut, when no such read that was sent less than one
ttl ago has been answered; a new view reaches every session before the next byte is read.
Assumes: `permits` reads the deadline page of this host's database, where it has one.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec

from primacy.clock import Clock
from primacy.coordination.api import Store
from primacy.errors import Compacted, PrimacyError
from primacy.model import Address, NodeId
from primacy.replication.records import PREFIX, PRIMARY_KEY
from primacy.routing.doors import Door, DoorLimits, Doors
from primacy.routing.route import RoutePolicy, is_confirmed
from primacy.routing.session import Permits, Surroundings
from primacy.routing.view import RouterView, confirmed, followed, listed
from primacy.routing.words import Words
from primacy.telemetry import Event, Sink

RECONNECT_S = 0.1
"""Between two attempts to follow the store. Its client waits for a leader by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """What the configuration says of one router. Ports of 0 ask for any that is free."""

    node: NodeId
    databases: dict[NodeId, Address]
    """Of every data node; only this host's own is connected to."""
    peer_doors: dict[NodeId, Address]
    """Of every node's router, this one's own included."""
    rw: Address
    ro: Address
    peer: Address
    """Where this router itself listens."""
    policy: RoutePolicy
    words: Words
    """How a refusal is said, in the databases' protocol."""
    hold_s: float = 10.0
    send_proxy_header: bool = True
    limits: DoorLimits = field(default_factory=DoorLimits)


class RouterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the router says of itself."""

    node: str
    is_rw_open: bool
    primary: str | None
    epoch: int
    confirmed_age_s: float | None
    open_connections: int
    held_connections: int
    opened: int
    held: int
    refused: int
    cut: int
    from_clients_bytes: int
    to_clients_bytes: int


class Router:
    """`await run()` serves until it is cancelled. `listening` is set once all doors are open."""

    def __init__(
        self,
        settings: RouterSettings,
        *,
        store: Store,
        clock: Clock,
        permits: Permits,
        events: Sink,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._permits = permits
        self._events = events
        self._view = RouterView()
        self._turn = 0
        self._doors: Doors | None = None
        self._peer_hosts: frozenset[str] = frozenset()
        self._was_rw_open = False
        self.listening = asyncio.Event()
        self.addresses: dict[Door, Address] = {}
        """Where each door listens, once `listening` is set."""

    @property
    def view(self) -> RouterView:
        return self._view

    async def run(self) -> None:
        """Raises `Rejected` where a door cannot be opened. Sessions end with it."""
        self._peer_hosts = await self._resolved_peers()
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            doors = Doors(
                self._surroundings(),
                self._settings.limits,
                is_peer=self._peer_hosts.__contains__,
                tasks=tasks,
                events=self._events,
            )
            wanted = {
                Door.RW: self._settings.rw,
                Door.RO: self._settings.ro,
                Door.PEER: self._settings.peer,
            }
            for door, where in wanted.items():
                self.addresses[door] = await doors.open(door, where, stack)
            self._doors = doors
            tasks.create_task(self._follow())
            tasks.create_task(self._confirm())
            self.listening.set()
            await asyncio.Event().wait()

    def status(self) -> RouterStatus:
        view, now_s, doors = self._view, self._clock.boottime_s(), self._doors
        counts = doors.counts if doors is not None else None
        age_s = now_s - view.confirmed_at_s
        return RouterStatus(
            node=self._settings.node,
            is_rw_open=self._is_rw_open(),
            primary=view.primary.node if view.primary is not None else None,
            epoch=view.primary.epoch if view.primary is not None else 0,
            confirmed_age_s=age_s if age_s != float("inf") else None,
            open_connections=len(doors.sessions) if doors is not None else 0,
            held_connections=doors.held_count if doors is not None else 0,
            opened=counts.opened if counts else 0,
            held=counts.held if counts else 0,
            refused=counts.refused if counts else 0,
            cut=counts.cut if counts else 0,
            from_clients_bytes=counts.from_clients_bytes if counts else 0,
            to_clients_bytes=counts.to_clients_bytes if counts else 0,
        )

    def _surroundings(self) -> Surroundings:
        settings = self._settings
        return Surroundings(
            here=settings.node,
            policy=settings.policy,
            hold_s=settings.hold_s,
            send_proxy_header=settings.send_proxy_header,
            words=settings.words,
            databases=settings.databases,
            peer_doors=settings.peer_doors,
            permits=self._permits,
            clock=self._clock,
            events=self._events,
            view=lambda: self._view,
            next_turn=self._next_turn,
        )

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    async def _resolved_peers(self) -> frozenset[str]:
        """The addresses that the nodes' hosts have now. A host that has none yet is reported."""
        loop = asyncio.get_running_loop()
        found: set[str] = set()
        for node, address in self._settings.peer_doors.items():
            try:
                entries = await loop.getaddrinfo(address.host, address.port)
            except OSError as error:
                fields = {"node": str(node), "host": address.host, "error": str(error)}
                self._events(Event("router-host-unknown", {**fields}))
                continue
            found.update(str(entry[4][0]) for entry in entries)
        return frozenset(found)

    async def _follow(self) -> None:
        """Keep the view up to date for ever; whatever breaks, list again and go on."""
        while True:
            try:
                await self._list_and_watch()
            except Compacted as error:
                self._events(Event("router-watch-restarted", {"why": error.what}))
            except PrimacyError as error:
                self._events(Event("router-store-unreachable", {"why": error.what}))
                await self._clock.sleep(RECONNECT_S)

    async def _list_and_watch(self) -> None:
        sent_at_s = self._clock.boottime_s()
        found = await self._store.range(PREFIX, is_prefix=True)
        now_s = self._clock.boottime_s()
        self._take(listed(self._view, found, sent_at_s=sent_at_s, now_s=now_s))
        following = self._store.watch(
            PREFIX, is_prefix=True, from_revision=type(found.revision)(found.revision + 1)
        )
        async with following as batches:
            async for batch in batches:
                self._take(followed(self._view, batch, now_s=self._clock.boottime_s()))

    async def _confirm(self) -> None:
        """A linearizable read each ttl/4, answered or given up within ttl/2; then a review, so
        that a view which has become too old is acted upon."""
        ttl_s = self._settings.policy.ttl_s
        while True:
            await self._clock.sleep(ttl_s / 4)
            sent_at_s = self._clock.boottime_s()
            try:
                async with asyncio.timeout(ttl_s / 4):
                    found = await self._store.range(PRIMARY_KEY)
            except (PrimacyError, TimeoutError):
                self._take(self._view)
            else:
                self._take(confirmed(self._view, found, sent_at_s=sent_at_s))

    def _take(self, view: RouterView) -> None:
        for key in view.unreadable if view is not self._view else ():
            self._events(Event("router-record-unreadable", {"key": key}))
        self._view = view
        if self._doors is not None:
            self._doors.review()
        is_rw_open = self._is_rw_open()
        if is_rw_open != self._was_rw_open:
            self._was_rw_open = is_rw_open
            status = self.status()
            name = "router-rw-opened" if is_rw_open else "router-rw-closed"
            self._events(Event(name, {"primary": status.primary, "epoch": status.epoch}))

    def _is_rw_open(self) -> bool:
        now_s = self._clock.boottime_s()
        confirmed_now = is_confirmed(self._view, self._settings.policy, now_s=now_s)
        return confirmed_now and self._view.open_epoch is not None
