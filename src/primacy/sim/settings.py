"""What a seed draws before its run: the cluster, its policy, its network and its bad luck.

Every run has another mix (swarm testing): some faults often, some never, so that rare combinations
are not drowned by common ones.
"""

import random
from dataclasses import dataclass, replace
from typing import Literal

from primacy.cluster.policy import Policy
from primacy.consensus.raft.node import Limits, Timing
from primacy.coordination.embedded.member import MemberLimits
from primacy.model import NodeId
from primacy.replication.pull.acks import AckOn
from primacy.sim.disk import DiskRates
from primacy.sim.faults import FAULTS
from primacy.sim.network import NetworkRates
from primacy.sim.world import CLOCK_SKEW_MAX

SWARM_FACTORS = (0.0, 1.0, 1.0, 3.0)
"""One fault of four is absent from a run, and one is frequent."""

EngineName = Literal["mariadb", "sqlite"]

APPLIED_SHARE = 0.3
"""Of the seeds of an engine that can wait until a write is applied: so many do."""

MORE_ACKS_SHARE = 0.3
"""And so many ask for more acknowledgements than MariaDB can give: up to all replicas."""

FAULT_EVERY_TTLS = (1.0, 2.0, 3.0, 6.0)
"""A cluster that is struck again before it has healed shows less than one that is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One run's configuration."""

    seed: int
    engine: EngineName = "mariadb"
    ack_on: AckOn = AckOn.RECEIVED
    nodes: tuple[NodeId, ...]
    data_nodes: tuple[NodeId, ...]
    policy: Policy
    timing: Timing
    limits: Limits
    member_limits: MemberLimits
    network: NetworkRates
    disk: DiskRates
    clock_rates: tuple[float, ...]
    faults: tuple[tuple[str, float], ...]
    """Weights: what may happen, and how often beside the others."""
    fault_every_s: float
    wall_rate: float
    """People's clocks may run fast: so that the back-off against flapping ends within a run."""
    write_every_s: float
    store_patience_s: float
    """How long a client of the store looks for an answer before it says that nobody knows."""

    def __str__(self) -> str:
        policy = self.policy
        of = "" if self.engine == "mariadb" else f"{self.engine}, "
        on = f" {self.ack_on.value}" if self.ack_on is AckOn.APPLIED else ""
        return (
            f"{of}{len(self.nodes)} nodes ({len(self.data_nodes)} data), ttl {policy.lease_ttl_s},"
            f" acks {policy.acks}{on} {policy.on_timeout}, fault every {self.fault_every_s:.1f} s"
        )


def draw(seed: int, engine: EngineName = "mariadb") -> Setup:
    """The same for all engines, but for what only some can do: that is drawn apart."""
    setup = _drawn(seed)
    if engine == "mariadb":
        return setup
    chance = random.Random(f"{seed}/{engine}")
    ack_on = AckOn.APPLIED if chance.random() < APPLIED_SHARE else AckOn.RECEIVED
    policy = setup.policy
    if policy.acks and chance.random() < MORE_ACKS_SHARE:
        policy = replace(policy, acks=chance.randint(1, len(setup.data_nodes) - 1))
    return replace(setup, engine=engine, ack_on=ack_on, policy=policy)


def _drawn(seed: int) -> Setup:
    chance = random.Random(f"{seed}/setup")
    shape = chance.choices(["three", "witness", "five"], [6, 2, 2])[0]
    count = 5 if shape == "five" else 3
    nodes = tuple(NodeId(name) for name in "abcde"[:count])
    data_nodes = nodes[:2] if shape == "witness" else nodes
    ttl_s = chance.choice([1.0, 1.0, 3.0])
    return Setup(
        seed=seed,
        nodes=nodes,
        data_nodes=data_nodes,
        policy=_policy(chance, data_nodes, ttl_s, seed=seed),
        timing=Timing.for_lease(ttl_s),
        limits=Limits(trailing_entries=chance.choice([20, 200, 5000])),
        member_limits=MemberLimits(snapshot_entries=chance.choice([100, 400, 10_000])),
        network=NetworkRates(
            delay_s=chance.choice([0.0003, 0.0003, 0.002, 0.006]),
            spike=chance.choice([0.0, 0.0, 0.001, 0.01]),
            loss=chance.choice([0.0, 0.0, 0.002, 0.02]),
            repeat=chance.choice([0.0, 0.0, 0.002, 0.02]),
        ),
        disk=DiskRates(
            fsync_s=chance.choice([0.0003, 0.001, 0.004]),
            stall=chance.choice([0.0, 0.0, 0.0005]),
        ),
        clock_rates=tuple(1.0 + chance.uniform(-CLOCK_SKEW_MAX, CLOCK_SKEW_MAX) for _ in nodes),
        faults=tuple(
            (name, weight * chance.choice(SWARM_FACTORS)) for name, weight in FAULTS.items()
        ),
        fault_every_s=ttl_s * chance.choice(FAULT_EVERY_TTLS),
        wall_rate=chance.choice([1.0, 30.0, 30.0]),
        write_every_s=chance.choice([0.1, 0.15, 0.3]),
        store_patience_s=chance.choice([0.7, 1.5, 3.0]),
    )


def _policy(
    chance: random.Random, data_nodes: tuple[NodeId, ...], ttl_s: float, *, seed: int
) -> Policy:
    acks = chance.choices([1, 0, 2], [8, 1, 1 if len(data_nodes) > 3 else 0])[0]
    on_timeout: Literal["block", "degrade"] = chance.choice(["block", "degrade"])
    degrade_failover: Literal["refuse", "lossy"] = chance.choice(["refuse", "refuse", "lossy"])
    never, preferred = _preferences(seed, data_nodes)
    return Policy(
        data_nodes=data_nodes,
        never_promote=never,
        preferred=preferred,
        return_to_preferred=bool(preferred),
        return_calm_s=5.0,
        acks=acks,
        on_timeout=on_timeout,
        timeout_s=chance.choice([1.0, 2.0]),
        degrade_failover=degrade_failover,
        lease_ttl_s=ttl_s,
        lossy_wait_s=ttl_s,
    )


def _preferences(
    seed: int, data_nodes: tuple[NodeId, ...]
) -> tuple[frozenset[NodeId], frozenset[NodeId]]:
    """Who is never promoted, and where the primary belongs; drawn apart, and mostly nobody."""
    chance = random.Random(f"{seed}/preferences")
    never: set[NodeId] = set()
    if len(data_nodes) > 2 and chance.random() < 0.2:
        never = {chance.choice(data_nodes)}
    able = [node for node in data_nodes if node not in never]
    preferred = {chance.choice(able)} if chance.random() < 0.3 else set()
    return frozenset(never), frozenset(preferred)
