"""Files that appear whole or not at all."""

import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from primacy.errors import Conflict, Unavailable

PRIVATE = 0o600
"""Readable by their owner only."""


class DiskFull(Unavailable):
    """There was no space, and nothing that was written before is in doubt. With space it goes on
    from what the disk holds."""


def is_full(error: OSError) -> bool:
    """No block, or no quota, is left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def free_bytes(directory: Path) -> int:
    """What is left for an ordinary user on the disk of `directory`."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def replace_file(
    path: Path,
    pieces: Iterable[bytes],
    *,
    mode: int = PRIVATE,
    owner: tuple[int, int] | None = None,
) -> None:
    """Write beside, sync, rename, sync the directory. Blocks. After a crash the old or the new
    content stands at `path`, and at worst a leftover `.new` beside it. `mode` is taken as it is,
    whatever the umask; `owner` is a user and a group by number, and needs root."""
    beside = path.with_name(path.name + ".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(fd, "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fchmod(fd, mode)
        if owner is not None:
            os.fchown(fd, *owner)
        os.fsync(fd)
    beside.rename(path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """What was written to it, by whomever, and its name."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_directory(directory: Path) -> int:
    """Hold `directory` for this process until the returned descriptor is closed. `Conflict` while
    another process has it."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Conflict(
            f"another process uses {directory}", hint="Stop it first; a node runs once."
        ) from error
    return fd
