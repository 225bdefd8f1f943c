"""A small disk for one node of a demo: a tmpfs of its own over the node's directory.

Promises  `fill` leaves no free block, `free` gives the space back, `close` removes the disk with
          all that is on it: the place is empty at once, the memory free when the last user is gone.
          The kernel holds what a killed server had under way (io_uring) a moment longer than it.
Assumes   Linux, and that this process may mount: as root, or in a room of its own (`in_room`).
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from primacy.cli.demo_programs import SEARCH_PATH, run, tried
from primacy.clock import Clock
from primacy.errors import Unavailable

SIZE_MB = 1024
"""Room for a database, its clone and what a clone sets aside; memory is used as it is written."""
ROOM = ("unshare", "--user", "--map-root-user", "--mount")
"""Namespaces in which whoever is not root may mount, and is taken for root. Nobody outside sees
what is mounted there, and it is gone with the last process inside."""
TRIES = 50
TRY_AGAIN_S = 0.02


class SmallDisk:
    """Mounted over `place`, which must exist and be empty."""

    def __init__(self, place: Path, clock: Clock) -> None:
        """`Unavailable` where it cannot be mounted."""
        self.place = place
        self._clock = clock
        run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0755", "tmpfs", str(place)])

    async def fill(self) -> int:
        """Shrink the disk to what is on it now. Returns how many bytes that is."""
        for _ in range(TRIES):
            stat = os.statvfs(self.place)
            used_bytes = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
            try:
                self._resize(used_bytes)
            except Unavailable:
                await self._clock.sleep(TRY_AGAIN_S)  # It has grown meanwhile.
            else:
                return used_bytes
        raise Unavailable(f"{self.place} grows faster than it can be filled", hint="Run it again.")

    def free(self) -> None:
        """The space is back."""
        self._resize(SIZE_MB << 20)

    def close(self, *, is_kept: bool) -> None:
        """With `is_kept` all that is on the disk stays, on the disk below."""
        beside = self.place.with_name(self.place.name + ".kept")
        if is_kept:
            shutil.copytree(self.place, beside, ignore=shutil.ignore_patterns("*.sock"))
        run(["umount", "--lazy", str(self.place)])
        if is_kept:
            self.place.rmdir()
            beside.rename(self.place)

    def _resize(self, size_bytes: int) -> None:
        # With its source named, mount adds no option that stands already: the kernel tells of an
        # owner in the numbers of the outside, which mean nobody in a room.
        run(["mount", "-o", f"remount,size={size_bytes}", "tmpfs", str(self.place)])


def why_no_disk(*, bears_room: bool) -> str:
    """What is missing here, in words; empty where nothing is. `bears_room`: what is to be on the
    disk can run where it is taken for root and is not."""
    is_root = os.geteuid() == 0
    if not is_root and not bears_room:
        return "that needs root"
    if shutil.which("mount", path=SEARCH_PATH) is None:
        return "mount not found"
    room = ("unshare", "--mount") if is_root else ROOM
    kernel = tried([*room, "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
    return "" if kernel.returncode == 0 else f"nothing can be mounted: {kernel.stderr.strip()}"


def needs_room() -> bool:
    """This process cannot mount as it is."""
    return os.geteuid() != 0


def enter_room(command: Sequence[str]) -> None:
    """Become `command` in a room where it can mount; a network of its own it cannot make there.
    Does not return."""
    sys.stdout.flush()
    os.execvp(ROOM[0], [*ROOM, *command])
