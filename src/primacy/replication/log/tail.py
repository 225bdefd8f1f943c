"""The file at the end of a log: the only one that is written to.

Promises  After a write for which there was no space the file is as before: `DiskFull`. What was
          written is durable when `sync` has returned, and the next write says so by a mark.
Assumes   One thread writes; `sync` may run in another one.
Does not  Decide what any other failure means: the `OSError` reaches its owner, which stops.
"""

import os
from pathlib import Path

from primacy.replication.log.segments import Head, encode_mark, file_path, write_at
from primacy.runtime.files import DiskFull, is_full

AHEAD_BYTES = 256 << 10
"""Of zeros, written at a time behind the end: a sync that does not change the file's size needs no
commit of the file system's journal, and takes about two thirds of the time."""


class Tail:
    """Takes over `fd`, of a file that ends at `end_offset`."""

    def __init__(self, fd: int, head: Head, *, end_offset: int, marked_offset: int) -> None:
        self.head = head
        self.end_offset = end_offset
        self.durable_offset = end_offset
        self._marked_offset = marked_offset
        self._size_bytes = end_offset
        self._fd = fd

    @classmethod
    def of_new(cls, directory: Path, head: Head) -> "Tail":
        """The file was just created, and is durable."""
        fd = os.open(file_path(directory, head.number), os.O_RDWR | os.O_CLOEXEC)
        offset = head.first_offset
        return cls(fd, head, end_offset=offset, marked_offset=offset)

    @classmethod
    def of_old(cls, path: Path, head: Head, *, cut_offset: int) -> "Tail":
        """A file that was whole, and now ends at `cut_offset`."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, cut_offset)
            os.fsync(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, head, end_offset=cut_offset, marked_offset=head.first_offset)

    def write(self, data: bytes) -> int:
        """Returns where the first record of `data` begins."""
        mark = b""
        if self.durable_offset > self._marked_offset:
            marked_offset = self.durable_offset
            mark = encode_mark(self.head.salt, marked_offset)
            self._write_or_undo(mark + data)
            self._marked_offset = marked_offset
        else:
            self._write_or_undo(data)
        begin = self.end_offset + len(mark)
        self.end_offset = begin + len(data)
        return begin

    def sync(self) -> None:
        """What is written before the call is durable after it."""
        end_offset = self.end_offset
        os.fdatasync(self._fd)
        self.durable_offset = max(self.durable_offset, end_offset)

    def finish(self) -> None:
        """Sync, and end with a mark: from now on any damage before it is told from a torn tail.
        `DiskFull`: it is synced, and has no mark."""
        if self.end_offset > self.durable_offset:
            self.sync()
        if self.durable_offset > self._marked_offset:
            self.write(b"")
        os.ftruncate(self._fd, self.end_offset)
        os.fsync(self._fd)
        self._size_bytes = self.durable_offset = self.end_offset

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write_or_undo(self, data: bytes) -> None:
        behind = self.end_offset + len(data)
        spare = bytes(AHEAD_BYTES) if behind > self._size_bytes else b""
        try:
            write_at(self._fd, data + spare if spare else data, self.end_offset)
        except OSError as error:
            if not is_full(error):
                raise
            os.ftruncate(self._fd, self.end_offset)
            os.fsync(self._fd)  # Else a loss of power may bring back records that were refused.
            self._size_bytes = self.end_offset
            raise DiskFull(
                f"no space for {len(data)} bytes in {file_path(Path(), self.head.number)}",
                hint="Nothing was written. Make space on the disk of the node's state directory.",
            ) from error
        self._size_bytes = max(self._size_bytes, behind + len(spare))
