"""What chance decided in a run, written down: so that it can be replayed, edited and made smaller.

A run without `Choices` draws them from its seed and records them; a run with them does as they say.
Told its own record, a run goes the same way event by event, to the same digest.

    strikes   which fault, when, on which node, and every further draw of it (how long, whom else)
    clients   who starts, and when
    nodes     who there is
    mishaps   which messages are lost, repeated or slow, and which fsyncs stall: by their numbers
    quiet     which of the run's rates and skews are as if nothing had been drawn for them
    salt      another number gives other network delays, fsync times and election timeouts

What is not told comes from the seed: the policy, the rates, and each message's delay.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from primacy.errors import Rejected
from primacy.model import NodeId

if TYPE_CHECKING:
    from primacy.sim.settings import Setup

PARTS = ("network", "disk")
"""Parts of a setup whose rates, where they are not the default, are small misfortunes."""

CLOCK_RATES = "clock_rates"


class Strike(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault of a run."""

    number: int
    """Its place in the run that drew it: names its stream of chance."""
    at_s: float
    fault: str
    node: str | None = None
    """None: the run ended before it struck, so nobody was chosen."""
    draws: tuple[float, ...] = ()
    """What it drew once it struck, each from 0 to 1; past their end its own stream goes on."""


class Client(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    start_s: float


class Mishaps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one kind: the n-th time that it could have happened, it did."""

    kind: str
    numbers: tuple[int, ...]


class Choices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. The file of `primacy sim shrink` holds one of these as JSON."""

    seed: int
    engine: Literal["mariadb", "sqlite"] = "mariadb"
    duration_s: float
    heal_at_s: float
    """When everything is repaired. At or past the duration: never."""
    is_converging: bool = True
    """Afterwards a client must get a write acknowledged."""
    salt: int = 0
    broken: str | None = None
    """The invariant that these choices broke when they were saved."""
    nodes: tuple[str, ...]
    clients: tuple[Client, ...]
    quiet: tuple[str, ...] = ()
    strikes: tuple[Strike, ...] = ()
    mishaps: tuple[Mishaps, ...] | None = None
    """None: as the rates have it."""

    @property
    def mishaps_count(self) -> int:
        return sum(len(each.numbers) for each in self.mishaps or ())

    def __str__(self) -> str:
        quiet = f", quiet: {' '.join(self.quiet)}" if self.quiet else ""
        return (
            f"{len(self.strikes)} faults, {len(self.clients)} clients, {len(self.nodes)} nodes,"
            f" {self.duration_s:.1f} s, {self.mishaps_count} mishaps{quiet}"
        )


class Draws(random.Random):
    """Chance whose every draw is on record, and may be told beforehand.

    Only `random` is overridden: all other ways to draw then go through it.
    """

    def __init__(self, stream: str, told: Sequence[float] = ()) -> None:
        super().__init__(stream)
        self.drawn: list[float] = []
        self._told = told

    def random(self) -> float:
        place = len(self.drawn)
        draw = self._told[place] if place < len(self._told) else super().random()
        self.drawn.append(draw)
        return draw


class Luck:
    """Decides each mishap: drawn at its rate, or told; on record either way.

    What is told is drawn all the same, so that the stream goes on as it did.
    """

    def __init__(self, told: tuple[Mishaps, ...] | None = None) -> None:
        self._told = None if told is None else {each.kind: set(each.numbers) for each in told}
        self._asked: dict[str, int] = {}
        self._happened: dict[str, list[int]] = {}

    def strikes(self, kind: str, chance: random.Random, rate: float) -> bool:
        number = self._asked[kind] = self._asked.get(kind, 0) + 1
        is_drawn = chance.random() < rate
        is_so = is_drawn if self._told is None else number in self._told.get(kind, ())
        if is_so:
            self._happened.setdefault(kind, []).append(number)
        return is_so

    @property
    def record(self) -> tuple[Mishaps, ...]:
        return tuple(
            Mishaps(kind=kind, numbers=tuple(numbers))
            for kind, numbers in sorted(self._happened.items())
        )


@dataclass(slots=True)
class Striking:
    """A strike as the run carries it out: its chance, and its node once there is one."""

    number: int
    at_s: float
    fault: str
    node: NodeId | None
    lot: random.Random
    """Decides when, what and whom. Not on record: its outcome is."""
    chance: Draws

    @property
    def record(self) -> Strike:
        return Strike(
            number=self.number,
            at_s=self.at_s,
            fault=self.fault,
            node=self.node,
            draws=tuple(self.chance.drawn),
        )


@dataclass(slots=True)
class Chooser:
    """Where a run asks for its choices: drawn, or told; on record either way."""

    seed: int
    told: Choices | None = None
    clients: list[Client] = field(default_factory=list)
    _strikes: list[Striking] = field(default_factory=list)

    # ---- faults

    @property
    def told_strikes(self) -> tuple[Strike, ...]:
        return () if self.told is None else self.told.strikes

    def next_strike(
        self, now_s: float, every_s: float, fault_of: Callable[[random.Random], str]
    ) -> Striking | None:
        """The strike after the last one; None where the list has ended."""
        place = len(self._strikes)
        if self.told is None:
            lot = self._lot(place)
            at_s = now_s + lot.expovariate(1.0 / every_s)
            strike = Strike(number=place, at_s=at_s, fault=fault_of(lot))
        elif place < len(self.told.strikes):
            strike = self.told.strikes[place]
            lot = self._lot(strike.number)
        else:
            return None
        striking = Striking(
            strike.number,
            strike.at_s,
            strike.fault,
            None if strike.node is None else NodeId(strike.node),
            lot,
            Draws(f"{self.seed}/fault/{strike.number}", strike.draws),
        )
        self._strikes.append(striking)
        return striking

    def _lot(self, number: int) -> random.Random:
        return random.Random(f"{self.seed}/fault/{number}/lot")

    # ---- clients

    def check_clients(self, names: Sequence[str]) -> None:
        told = () if self.told is None else self.told.clients
        unknown = [each.name for each in told if each.name not in names]
        if unknown:
            raise Rejected(
                f"the choices start {', '.join(unknown)}; the clients are {', '.join(names)}",
                hint="Correct the file of choices.",
            )

    def start_of(self, name: str, drawn_s: float) -> float | None:
        """When this client starts; None where it does not."""
        if self.told is None:
            start_s: float | None = drawn_s
        else:
            start_s = next((each.start_s for each in self.told.clients if each.name == name), None)
        if start_s is not None:
            self.clients.append(Client(name=name, start_s=start_s))
        return start_s

    # ---- the record

    def record(
        self, setup: "Setup", duration_s: float, heal_at_s: float, *, broken: str | None, luck: Luck
    ) -> Choices:
        told = self.told
        return Choices(
            seed=self.seed,
            engine=setup.engine,
            duration_s=duration_s,
            heal_at_s=heal_at_s,
            is_converging=told is None or told.is_converging,
            salt=0 if told is None else told.salt,
            broken=broken,
            nodes=setup.nodes,
            clients=tuple(self.clients),
            quiet=() if told is None else told.quiet,
            strikes=tuple(each.record for each in self._strikes),
            mishaps=luck.record,
        )


# ---- the setup


def misfortunes(setup: "Setup") -> tuple[str, ...]:
    """What `Choices.quiet` can name in this setup."""
    names = [
        f"{part}.{each.name}"
        for part in PARTS
        for each in fields(getattr(setup, part))
        if each.default is not MISSING and getattr(getattr(setup, part), each.name) != each.default
    ]
    return (*names, CLOCK_RATES)


def narrowed(setup: "Setup", choices: Choices) -> "Setup":
    """The seed's setup with the nodes that the choices name, and without what they quieten."""
    foreign = [name for name in choices.nodes if name not in setup.nodes]
    unknown = [name for name in choices.quiet if name not in misfortunes(setup)]
    if foreign or unknown:
        raise Rejected(
            f"the choices name {', '.join(foreign + unknown)}, which the run of seed {setup.seed}"
            f" does not have ({setup})",
            hint="The file is of another seed, or of another version of primacy.",
        )
    kept = [place for place, node in enumerate(setup.nodes) if node in choices.nodes]
    data_nodes = tuple(node for node in setup.data_nodes if node in choices.nodes)
    narrow = replace(
        setup,
        nodes=tuple(setup.nodes[place] for place in kept),
        data_nodes=data_nodes,
        policy=replace(setup.policy, data_nodes=data_nodes),
        clock_rates=tuple(setup.clock_rates[place] for place in kept),
    )
    for name in choices.quiet:
        narrow = _without(narrow, name)
    return narrow


def _without(setup: "Setup", name: str) -> "Setup":
    if name == CLOCK_RATES:
        return replace(setup, clock_rates=(1.0,) * len(setup.nodes))
    part, rate = name.split(".")
    of_part = getattr(setup, part)
    default = next(each.default for each in fields(of_part) if each.name == rate)
    changed = replace(of_part, **{rate: default})
    return replace(setup, **{part: changed})


# ---- files


def encoded(choices: Choices) -> bytes:
    """One object, indented, for people to read and edit."""
    return msgspec.json.format(msgspec.json.encode(choices), indent=2) + b"\n"


def decoded(data: bytes, source: str) -> Choices:
    """`source` is the file's name, for the message. Raises `Rejected`."""
    try:
        choices = msgspec.json.decode(data, type=Choices)
    except msgspec.DecodeError as error:
        raise Rejected(
            f"{source} holds no choices: {error}", hint="Take one that `sim shrink` wrote."
        ) from error
    times_s = [choices.duration_s, choices.heal_at_s, *(each.at_s for each in choices.strikes)]
    times_s += [each.start_s for each in choices.clients]
    draws = [draw for strike in choices.strikes for draw in strike.draws]
    if min(times_s) < 0.0 or not all(0.0 <= draw < 1.0 for draw in draws):
        raise Rejected(
            f"{source}: a time is negative, or a draw is not from 0 to below 1",
            hint="Correct it by hand, or shrink the seed again.",
        )
    if any(later.at_s < sooner.at_s for sooner, later in pairwise(choices.strikes)):
        raise Rejected(f"{source}: the strikes are not in order of time", hint="Sort them.")
    return choices
