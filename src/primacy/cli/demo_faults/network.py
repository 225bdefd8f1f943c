"""What one host hears of another. Clients on this machine still reach every host."""

from collections.abc import Iterable

from primacy.cli.demo_faults.stage import HOST_AWAY_S, Stage
from primacy.cli.demo_nodes import STORE_PORTS
from primacy.model import NodeId

Link = tuple[NodeId, NodeId]
"""From whom, to whom."""


async def partition(stage: Stage, primary: NodeId) -> None:
    """The primary's host is cut from all other hosts, both ways."""
    out, back = _links(stage, primary)
    await _cut(stage, [*out, *back], f"{primary} is cut from all other hosts")


async def one_way(stage: Stage, primary: NodeId) -> None:
    """The primary's host is heard but does not hear; then, after it has healed, the reverse."""
    _, back = _links(stage, primary)
    await _cut(stage, back, f"{primary} is heard and does not hear")
    await stage.healed()
    await stage.calm()
    next_primary = stage.scene.primary or primary
    out, _ = _links(stage, next_primary)
    await _cut(stage, out, f"{next_primary} hears and is not heard")


async def store_cut(stage: Stage, primary: NodeId) -> None:
    """The primary reaches its replicas, and not the other members of the store."""
    out, back = _links(stage, primary)
    nodes = stage.cluster.nodes.values()
    ports = {node.ports[name] for node in nodes for name in STORE_PORTS}
    await _cut(stage, [*out, *back], f"{primary} is cut from the store", ports=ports)


def _links(stage: Stage, node: NodeId) -> tuple[list[Link], list[Link]]:
    """From the node to each other one, and back."""
    others = [each for each in stage.scene.nodes if each != node]
    return [(node, each) for each in others], [(each, node) for each in others]


async def _cut(
    stage: Stage, links: Iterable[Link], what: str, *, ports: Iterable[int] = ()
) -> None:
    epoch = stage.epoch
    network = stage.network
    stage.say("demo", what)
    try:
        for sender, receiver in links:
            network.cut(sender, receiver, ports=frozenset(ports))
        await stage.replaced(epoch)
        await stage.pause(HOST_AWAY_S)
    finally:
        network.heal()
        stage.say("demo", "the network is whole again")
