"""The network between hosts: delays, loss, repeats, and links that are cut one way or both.

A message is a value and an action that its receiver performs on arrival; nothing is encoded.
Messages of one flow keep their order unless they are repeated; a flow is a connection, so what
a lost connection still carried may arrive late.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from primacy.sim.world import Process, World

LOCAL_DELAY_S = 0.00005
"""Between two processes of one host."""

RETRANSMIT_S = 0.2
"""How much later a lost packet of a connection arrives."""

STORE_FLOWS = ("raft", "snapshot", "store", "watch")
LOG_FLOWS = ("log", "acks")
"""What flows carry: between members and their clients; between databases."""

REPEAT_DELAY_MAX_S = 0.5
"""How late a repeated message may come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRates:
    """What the seed drew for this run."""

    delay_s: float = 0.0005
    """The median; the tail is exponential."""
    spike: float = 0.0
    """Share of messages that are fifty times as slow."""
    loss: float = 0.0
    repeat: float = 0.0


class Network:
    """Carries messages between hosts. `cuts` holds the directed links that carry nothing."""

    def __init__(self, world: World, rates: NetworkRates) -> None:
        self.rates = rates
        self.cuts: set[tuple[str, str]] = set()
        self.flow_cuts: set[tuple[str, str, str]] = set()
        """Directed links that carry all but one flow."""
        self.lags_s: dict[tuple[str, str, str], float] = {}
        """What directed links add to one flow's delay."""
        self._world = world
        self._chance: random.Random = world.stream("network")
        self._last_arrival_s: dict[tuple[str, str, str], float] = {}

    def is_cut(self, source: str, target: str, flow: str = "") -> bool:
        return self._is_severed(source, target, flow)

    def heal(self) -> None:
        """Spikes go too: where every hundredth message takes longer than an election waits, and one
        voter is lost for good, two remain that no protocol could keep together."""
        self.rates = replace(self.rates, spike=0.0)
        self.cuts.clear()
        self.flow_cuts.clear()
        self.lags_s.clear()

    def _is_severed(self, source: str, target: str, flow: str) -> bool:
        if not self.cuts and not self.flow_cuts:
            return False
        return (source, target) in self.cuts or (source, target, flow) in self.flow_cuts

    def send(
        self,
        source: str,
        target: Process,
        flow: str,
        action: Callable[..., None],
        *arguments: object,
    ) -> None:
        """Perhaps, later, `target` performs `action`. A dead target hears nothing."""
        world, chance, rates = self._world, self._chance, self.rates
        if source == target.host:
            world.after(LOCAL_DELAY_S, target, action, *arguments)
            return
        if self._is_severed(source, target.host, flow):
            return
        if rates.loss and world.luck.strikes("loss", chance, rates.loss):
            world.trace.sometimes("message lost")
            return
        key = (source, target.host, flow)
        delay_s = self._delay_s() + self._lag_s(key)
        arrival_s = max(world.now_s + delay_s, self._last_arrival_s.get(key, 0.0))
        self._last_arrival_s[key] = arrival_s
        wait_s = arrival_s - world.now_s
        world.after(wait_s, target, self._arrive, source, target, flow, action, arguments)
        if rates.repeat and world.luck.strikes("repeat", chance, rates.repeat):
            late_s = wait_s + chance.random() * REPEAT_DELAY_MAX_S
            world.trace.sometimes("message repeated")
            world.after(late_s, target, self._arrive, source, target, flow, action, arguments)

    def stream(
        self,
        source: str,
        target: Process,
        flow: str,
        action: Callable[..., None],
        *arguments: object,
    ) -> None:
        """As `send`, over a connection that repeats what the network loses: a loss is a delay."""
        world, chance, rates = self._world, self._chance, self.rates
        if source == target.host:
            world.after(LOCAL_DELAY_S, target, action, *arguments)
            return
        if self._is_severed(source, target.host, flow):
            return
        key = (source, target.host, flow)
        delay_s = self._delay_s() + self._lag_s(key)
        if rates.loss and world.luck.strikes("retransmit", chance, rates.loss):
            delay_s += RETRANSMIT_S
        arrival_s = max(world.now_s + delay_s, self._last_arrival_s.get(key, 0.0))
        self._last_arrival_s[key] = arrival_s
        wait_s = arrival_s - world.now_s
        world.after(wait_s, target, self._arrive, source, target, flow, action, arguments)

    def end_lags(self, host: str) -> None:
        """What the host sends from now on is not late any more."""
        for link in [link for link in self.lags_s if link[0] == host]:
            del self.lags_s[link]

    def forget_flows(self, host: str, flows: tuple[str, ...] = STORE_FLOWS + LOG_FLOWS) -> None:
        """The host's connections are gone: new ones do not wait behind what the old still carry."""
        gone = [key for key in self._last_arrival_s if host in (key[0], key[1]) and key[2] in flows]
        for key in gone:
            del self._last_arrival_s[key]

    def _arrive(
        self,
        source: str,
        target: Process,
        flow: str,
        action: Callable[..., None],
        arguments: tuple[object, ...],
    ) -> None:
        if self._is_severed(source, target.host, flow):
            self._world.trace.sometimes("message lost in a cut")
            return
        action(*arguments)

    def _lag_s(self, key: tuple[str, str, str]) -> float:
        return self.lags_s.get(key, 0.0) if self.lags_s else 0.0

    def _delay_s(self) -> float:
        chance, rates = self._chance, self.rates
        delay_s = rates.delay_s * (0.5 + chance.expovariate(1.0) * 0.7)
        if rates.spike and self._world.luck.strikes("spike", chance, rates.spike):
            delay_s *= 50.0
        return delay_s
