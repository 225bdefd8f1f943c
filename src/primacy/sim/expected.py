"""What a large budget of runs must have reached: a check that never ran has found nothing."""

from primacy.sim.settings import EngineName

COMMON = (
    "store election",
    "failover",
    "switchover",
    "restart",
    "member came in",
    "member went out",
    "degradation",
    "pause past the ttl",
    "crash lost unsynced data",
    "guard killed at the deadline",
    "clone",
    "diverged log",
    "unacknowledged tail cut",
    "store snapshot saved",
    "store snapshot installed",
    "message lost in a cut",
    "message repeated",
    "window of a store history",
    "window with operations at a time",
    "window after a lost answer",
    "server ended while it started",
    "data disk wiped",
    "data disk given back",
    "store disk wiped",
    "wiped voter refused",
    "damaged log refused",
    "disk stopped its owner: an fsync failed",
    "disk stopped its owner: no space is left",
    "crash after a vote",
    "requests on their way for long",
    "struck when a claim was sent",
    "struck when a swap of the durability record was sent",
    "struck when an offer of the lead was sent",
    "struck when a replica began to acknowledge",
    "struck when a member took a snapshot of the store",
)
"""Of every engine."""

EXPECTED: dict[EngineName, tuple[str, ...]] = {
    "mariadb": (*COMMON, "late acknowledgement", "relay log salvaged"),
    "sqlite": (*COMMON, "rewound", "applier gave up", "log purged at its source", "group in doubt"),
}
"""Counters of the trace, by engine. `sim run` names those that stayed at zero."""
