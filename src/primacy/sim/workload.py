"""Clients: writers through the routers, writers attached directly, and a client of the store.

A writer sends one write at a time, with an id that nobody else uses, and waits for its answer or
gives up; it does not know which, and goes on with another id.
"""

import asyncio
import random
from collections.abc import Callable, Sequence

from primacy.coordination.api import Put, Txn
from primacy.errors import PrimacyError
from primacy.model import Epoch, NodeId
from primacy.sim.engine_log import Record
from primacy.sim.engine_model import ModelEngine
from primacy.sim.guard_model import Page
from primacy.sim.invariants import ONCE_PREFIX, Invariants
from primacy.sim.loop import SimClock
from primacy.sim.network import Network
from primacy.sim.store_client import SimStore
from primacy.sim.world import Process, World

GIVE_UP_S = 1.5
CLIENT_HOST = "client"


class RouterModel:
    """The `rw` door on one host: it reads the host's page before anything passes, either way."""

    def __init__(  # noqa: PLR0913  # The parts of a door: each is handed in.
        self,
        node: NodeId,
        world: World,
        network: Network,
        *,
        process: Process,
        engine: ModelEngine,
        page: Page,
        witness: Invariants,
    ) -> None:
        self.node = node
        self.process = process
        self._world = world
        self._network = network
        self._engine = engine
        self._page = page
        self._witness = witness

    def on_write(self, uid: int, client: Process, answer: Callable[[bool], None]) -> None:
        """`answer` hears True for an OK that passed; False for a refusal; or nothing at all."""
        epoch = self._page.epoch
        if not self._passes(epoch):
            self._network.send(self.node, client, "answers", answer, False)  # noqa: FBT003 - a message
            return

        def replied(record: Record | None) -> None:
            if self.process.is_running:
                self._world.after(
                    0.0001, self.process, self._on_reply, record, epoch, client, answer
                )

        if not self._engine.process.is_running or not self._engine.write(uid, replied):
            self._network.send(self.node, client, "answers", answer, False)  # noqa: FBT003 - a message

    def _on_reply(
        self, record: Record | None, epoch: Epoch, client: Process, answer: Callable[[bool], None]
    ) -> None:
        if record is None or not self._passes(epoch):
            return
        self._witness.on_passed(self.node, epoch)
        self._engine.witnesses.on_told(record.uid)
        self._network.send(self.node, client, "answers", answer, True)  # noqa: FBT003 - a message

    def _passes(self, epoch: Epoch) -> bool:
        return self._page.passes(epoch, self.process.clock.local_s(self._world.now_s))


class Uids:
    """Numbers that no two writes share."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


class Writer:
    """Sends writes through one router after another, until one takes them."""

    def __init__(  # noqa: PLR0913  # The parts of a client: each is handed in.
        self,
        name: str,
        world: World,
        network: Network,
        *,
        client: Process,
        routers: Sequence[RouterModel],
        uids: Uids,
        every_s: float,
    ) -> None:
        self.name = name
        self.ok_count = 0
        self.ok_at_s = 0.0
        self._world = world
        self._network = network
        self._client = client
        self._routers = routers
        self._uids = uids
        self._every_s = every_s
        self._chance: random.Random = world.stream(f"load/{name}")
        self._place = 0
        self._waiting = 0

    def start_s(self) -> float:
        """When it would start, left to itself."""
        return self._chance.random() * self._every_s

    def start(self, at_s: float) -> None:
        self._world.at(at_s, self._client, self._send)

    def _send(self) -> None:
        uid = self._waiting = self._uids.next()
        router = self._routers[self._place]

        def answered(is_ok: bool) -> None:  # noqa: FBT001 - a message
            if self._waiting != uid:
                return
            self._waiting = 0
            if is_ok:
                self.ok_count += 1
                self.ok_at_s = self._world.now_s
            else:
                self._place = (self._place + 1) % len(self._routers)
            self._again()

        def give_up() -> None:
            if self._waiting == uid:
                self._place = (self._place + 1) % len(self._routers)
                self._send()

        self._network.send(
            CLIENT_HOST, router.process, "writes", router.on_write, uid, self._client, answered
        )
        self._world.after(GIVE_UP_S, self._client, give_up)

    def _again(self) -> None:
        delay_s = self._every_s * (0.5 + self._chance.random())
        self._world.after(delay_s, self._client, self._send)


class DirectWriter:
    """Attached to one server, and never stops trying: no page and no router in between."""

    def __init__(
        self,
        name: str,
        world: World,
        *,
        client: Process,
        engine: ModelEngine,
        uids: Uids,
        every_s: float,
    ) -> None:
        self.name = name
        self.ok_count = 0
        self._world = world
        self._client = client
        self._engine = engine
        self._uids = uids
        self._every_s = every_s
        self._chance: random.Random = world.stream(f"load/{name}")
        self._waiting = 0

    def start_s(self) -> float:
        """When it would start, left to itself."""
        return self._chance.random() * self._every_s

    def start(self, at_s: float) -> None:
        self._world.at(at_s, self._client, self._send)

    def _send(self) -> None:
        delay_s = self._every_s * (0.5 + self._chance.random())
        self._world.after(delay_s, self._client, self._send)
        if not self._engine.process.is_running or self._waiting:
            return
        uid = self._uids.next()

        def replied(record: Record | None) -> None:
            self._waiting = 0
            if record is not None:
                self.ok_count += 1
                self._engine.witnesses.on_told(record.uid)

        if self._engine.write(uid, replied):
            self._waiting = uid


async def write_once(store: SimStore, clock: SimClock, name: str, every_s: float) -> None:
    """Numbered writes to the store, each under a key of its own, each once."""
    number = 0
    while True:
        number += 1
        try:
            async with asyncio.timeout(10.0):
                await store.txn(Txn(then=(Put(f"{ONCE_PREFIX}{name}/{number}", b"x"),)))
                if number % 4 == 0:
                    await store.range(f"{ONCE_PREFIX}{name}/{number}")
        except (PrimacyError, TimeoutError):
            await clock.sleep(every_s)
        await clock.sleep(every_s)
