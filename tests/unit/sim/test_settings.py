"""What a seed draws: pinned for MariaDB, since each number of a seed that is on record anywhere
means that run; and for both engines the same, but for what only one can do."""

import random
from zlib import crc32

import pytest

from primacy.replication.pull.acks import AckOn
from primacy.sim.settings import Setup, draw

DRAWN = {1: 834577419, 2: 2433173768, 7: 122286462, 65: 804532043, 195: 571520217, 1718: 4273546710}
"""Of each seed: the checksum of all that is drawn."""


def checksum(setup: Setup) -> int:
    policy = setup.policy
    drawn = (
        setup.nodes,
        setup.data_nodes,
        (policy.acks, policy.on_timeout, policy.timeout_s, policy.degrade_failover),
        (policy.lease_ttl_s, sorted(policy.never_promote), sorted(policy.preferred)),
        (setup.limits.trailing_entries, setup.member_limits.snapshot_entries),
        (setup.network.delay_s, setup.network.spike, setup.network.loss, setup.network.repeat),
        (setup.disk.fsync_s, setup.disk.stall),
        [round(rate, 9) for rate in setup.clock_rates],
        setup.faults,
        (setup.fault_every_s, setup.wall_rate, setup.write_every_s, setup.store_patience_s),
    )
    return crc32(repr(drawn).encode())


@pytest.mark.parametrize("seed", DRAWN)
def test_a_seed_draws_what_it_always_drew(seed: int) -> None:
    random.seed(0)  # Nobody else's chance counts.
    draw(seed, "sqlite")
    assert checksum(draw(seed)) == DRAWN[seed]


def test_a_seed_is_the_same_for_both_engines_but_for_what_only_one_can_do() -> None:
    drawn = [(draw(seed), draw(seed, "sqlite")) for seed in range(60)]
    for plain, other in drawn:
        assert (other.engine, plain.engine, plain.ack_on) == ("sqlite", "mariadb", AckOn.RECEIVED)
        assert (plain.faults, plain.network, plain.nodes) == (
            other.faults,
            other.network,
            other.nodes,
        )
        assert 0 <= other.policy.acks < len(other.data_nodes)
    assert any(other.policy.acks > plain.policy.acks for plain, other in drawn)
    assert {other.ack_on for _, other in drawn} == set(AckOn)
