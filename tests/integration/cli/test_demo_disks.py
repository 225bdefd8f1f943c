"""The small disk of a demo, on a real kernel."""

import asyncio
import os
from pathlib import Path

import pytest

from primacy.cli.demo_disks import SmallDisk, why_no_disk
from primacy.clock import SystemClock

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(why_no_disk() != "", reason=f"no disk can be mounted: {why_no_disk()}"),
]


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


def test_a_file_that_is_still_open_keeps_no_disk_in_its_place(tmp_path: Path) -> None:
    """A killed server's last requests are the kernel's for a moment: a demo failed by that."""
    disk = SmallDisk(tmp_path, SystemClock())
    with (tmp_path / "busy").open("wb"):
        disk.close(is_kept=False)
        assert not os.path.ismount(tmp_path)
        assert list(tmp_path.iterdir()) == []
