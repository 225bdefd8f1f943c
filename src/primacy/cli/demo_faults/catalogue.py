"""All faults by name: what each needs, which can happen here, which are drawn by chance."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from primacy.cli.demo_database import database_of
from primacy.cli.demo_disks import why_no_disk
from primacy.cli.demo_faults import cluster, disks, network, others, primary
from primacy.cli.demo_faults.stage import Run
from primacy.cli.demo_relayed import why_no_cuts
from primacy.errors import Rejected

NETWORK = "network"
DISK = "disk"
NEEDS: Mapping[str, Callable[[str], str]] = {
    NETWORK: lambda _engine: why_no_cuts(),
    DISK: lambda engine: why_no_disk(bears_room=database_of(engine).bears_room),
}
"""Need -> why this machine cannot meet it for servers of that engine; empty where it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    name: str
    run: Run
    need: str = ""
    is_pairable: bool = True
    """It can happen together with another one. Those that heal in between happen alone."""


FAULTS: Mapping[str, Fault] = {
    each.name: each
    for each in (
        Fault(name="crash", run=primary.crash),
        Fault(name="host", run=primary.host),
        Fault(name="switchover", run=primary.switchover),
        Fault(name="laggard", run=others.laggard),
        Fault(name="freeze", run=primary.freeze),
        Fault(name="agent", run=primary.agent),
        Fault(name="guard", run=primary.guard),
        Fault(name="hang", run=primary.hang),
        Fault(name="partition", run=network.partition, need=NETWORK),
        Fault(name="one-way", run=network.one_way, need=NETWORK, is_pairable=False),
        Fault(name="store-cut", run=network.store_cut, need=NETWORK),
        Fault(name="store-leader", run=others.store_leader, is_pairable=False),
        Fault(name="replica-restart", run=others.replica_restart),
        Fault(name="mid-promotion", run=others.mid_promotion),
        Fault(name="replica-agent", run=others.replica_agent),
        Fault(name="broken-replica", run=others.broken_replica),
        Fault(name="no-restart", run=primary.no_restart),
        Fault(name="disk-full", run=disks.disk_full, need=DISK, is_pairable=False),
        Fault(name="blackout", run=cluster.blackout),
        Fault(name="power", run=cluster.power),
    )
}

ALL = "all"
RANDOM = "random"
PAIR_SHARE = 0.5
"""Of the rounds that are drawn by chance: how many are two faults at once."""

Round = tuple[Fault, ...]
"""One fault, or two at the same time."""


def named(round_: Round) -> str:
    return "+".join(fault.name for fault in round_)


@dataclass(frozen=True, slots=True)
class Programme:
    """What a demo does, and what it leaves out with the reason."""

    rounds: tuple[Round, ...]
    skipped: Mapping[str, str]

    def needs(self, need: str) -> bool:
        return any(fault.need == need for round_ in self.rounds for fault in round_)


def programme(asked: str, *, engine: str, rounds: int, chance: random.Random) -> Programme:
    """`asked`: names with commas, all, or random. `Rejected` for a name that is not known, or one
    that this machine cannot do."""
    if asked in (ALL, RANDOM):
        lacking = {need: why for need, find in NEEDS.items() if (why := find(engine))}
        skipped = {
            each.name: lacking[each.need] for each in FAULTS.values() if each.need in lacking
        }
        able = [each for each in FAULTS.values() if each.name not in skipped]
        if asked == ALL:
            return Programme(tuple((each,) for each in able) * rounds, skipped)
        return Programme(tuple(_drawn(able, chance) for _ in range(rounds)), skipped)
    names = asked.split(",")
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        known = ", ".join((*FAULTS, ALL, RANDOM))
        raise Rejected(f"--fault {','.join(unknown)} is not known", hint=f"Known: {known}.")
    for name in names:
        need = FAULTS[name].need
        why = NEEDS[need](engine) if need else ""
        if why:
            raise Rejected(f"--fault {name} cannot happen here: {why}", hint="Leave it out.")
    return Programme(tuple((FAULTS[name],) for name in names) * rounds, {})


def _drawn(able: Sequence[Fault], chance: random.Random) -> Round:
    pairable = [each for each in able if each.is_pairable]
    if len(pairable) > 1 and chance.random() < PAIR_SHARE:
        return tuple(chance.sample(pairable, 2))
    return (chance.choice(able),)
