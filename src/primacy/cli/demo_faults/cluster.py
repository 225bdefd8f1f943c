"""Everything on all hosts at once."""

import shutil

from primacy.cli.demo_faults.stage import Stage
from primacy.model import NodeId

DARK_S = 1.0
BETWEEN_STARTS_MAX_S = 2.0


async def blackout(stage: Stage, primary: NodeId) -> None:
    """SIGKILL of everything on all hosts at one instant; they start again in a random order."""
    del primary
    await _dark(stage, lost=None)


async def power(stage: Stage, primary: NodeId) -> None:
    """The same, and the old primary's data disk is gone. Its member of the store keeps its own."""
    await _dark(stage, lost=primary)


async def _dark(stage: Stage, *, lost: NodeId | None) -> None:
    epoch = stage.epoch
    order = list(stage.scene.nodes)
    stage.chance.shuffle(order)
    try:
        for node in stage.scene.nodes:
            stage.cluster.kill_host(node)
        if lost is not None:
            _wipe(stage, lost)
        await stage.pause(DARK_S)
    finally:
        for node in order:
            stage.start(node)
            if node != order[-1]:
                await stage.pause(stage.chance.uniform(0, BETWEEN_STARTS_MAX_S))
    await stage.replaced(epoch)


def _wipe(stage: Stage, node: NodeId) -> None:
    for each in stage.cluster.nodes[node].state_dir.iterdir():
        if each.is_dir() and each.name != "store":
            shutil.rmtree(each)
    stage.say("demo", f"{node}'s data disk is gone")
