"""A node's disk is full: the small disk that one of the nodes has."""

from primacy.cli.demo_disks import SmallDisk
from primacy.cli.demo_faults.primary import hand_over
from primacy.cli.demo_faults.stage import HOST_AWAY_S, Stage
from primacy.errors import Rejected
from primacy.model import NodeId


async def disk_full(stage: Stage, primary: NodeId) -> None:
    """The primary's data disk fills up; then, after it has healed, the same disk of a replica."""
    disk = stage.disk
    if disk is None:
        raise Rejected("no node of this cluster has a small disk", hint="Run the demo as root.")
    owner = NodeId(disk.place.name)
    if owner != primary:
        await hand_over(stage, primary, owner)
        await stage.healed()
    stage.begin()
    await _fill(stage, disk, owner)
    await stage.healed()
    if stage.scene.primary == owner:
        await hand_over(stage, owner, stage.any_replica(owner))
        await stage.healed()
    await _fill(stage, disk, owner)


async def _fill(stage: Stage, disk: SmallDisk, owner: NodeId) -> None:
    epoch, was_primary = stage.epoch, stage.scene.primary == owner
    try:
        used_bytes = await disk.fill()
        stage.say("demo", f"{owner}'s disk is full: {used_bytes / 2**20:.1f} MB")
        if was_primary:
            await stage.replaced(epoch)
        await stage.pause(HOST_AWAY_S)
    finally:
        disk.free()
        stage.say("demo", f"{owner}'s disk has space again")
