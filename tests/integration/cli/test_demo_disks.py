"""The small disk of a demo, on a real kernel."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from primacy.cli.demo_disks import ROOM, SmallDisk, why_no_disk
from primacy.cli.demo_programs import tried
from primacy.clock import SystemClock

WHY_NOT = why_no_disk(bears_room=False)
WHY_NO_ROOM = tried([*ROOM, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).stderr.strip()

pytestmark = pytest.mark.integration
can_mount = pytest.mark.skipif(WHY_NOT != "", reason=f"no disk can be mounted: {WHY_NOT}")


@can_mount
def test_a_full_disk_takes_nothing_until_it_has_space_again(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path, SystemClock())
    try:
        (tmp_path / "data").write_bytes(bytes(1 << 20))
        asyncio.run(disk.fill())
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "more").write_bytes(bytes(1 << 20))
        disk.free()
        (tmp_path / "more").write_bytes(bytes(1 << 20))
    finally:
        disk.close(is_kept=False)
    assert not os.path.ismount(tmp_path)


@pytest.mark.skipif(WHY_NO_ROOM != "", reason=f"nobody can mount here: {WHY_NO_ROOM}")
def test_in_a_room_of_its_own_a_process_has_a_small_disk_that_nobody_else_sees(
    tmp_path: Path,
) -> None:
    script = f"""
import asyncio, pathlib
from primacy.cli.demo_disks import SmallDisk, why_no_disk
from primacy.clock import SystemClock
assert why_no_disk(bears_room=False) == ""
place = pathlib.Path({str(tmp_path)!r})
disk = SmallDisk(place, SystemClock())
(place / "data").write_bytes(bytes(1 << 20))
asyncio.run(disk.fill())
try:
    (place / "more").write_bytes(bytes(1 << 20))
except OSError as error:
    print(error.strerror)
"""
    room = [*ROOM, sys.executable, "-c", script]
    done = subprocess.run(room, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "No space left on device\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


@can_mount
def test_a_file_that_is_still_open_keeps_no_disk_in_its_place(tmp_path: Path) -> None:
    """A killed server's last requests are the kernel's for a moment: a demo failed by that."""
    disk = SmallDisk(tmp_path, SystemClock())
    with (tmp_path / "busy").open("wb"):
        disk.close(is_kept=False)
        assert not os.path.ismount(tmp_path)
        assert list(tmp_path.iterdir()) == []
