"""What a loss of power may leave of a killed process's files: in part, what no sync covered.

Does not  Take anything that was durable: that is what the tests ask for.
"""

import random
import struct
from pathlib import Path

from primacy.replication.log import inspecting

WAL_HEAD_BYTES, FRAME_HEAD_BYTES = 32, 24
_CHECKPOINTED_OFFSETS = (96, 128)
"""In SQLite's index of its WAL: how many frames are in the database file, or may be in part."""


def lose_log_tail(directory: Path, durable: int, chance: random.Random) -> None:
    """What no sync covered reached the disk in part, or not at all."""
    last = inspecting.verify(directory).files[-1]
    path = directory / last.file
    found = inspecting.find_index(directory, durable)
    begin = last.durable_offset  # By its marks: of a sync, maybe, that was not reported any more.
    if found.file == last.file:
        begin = max(begin, found.offset + found.header.length)
    data = bytearray(path.read_bytes())
    lost = chance.randrange(begin, max(last.end_offset, begin) + 1)
    match chance.randrange(3):
        case 0:
            del data[lost:]
        case 1:
            data[lost:] = bytes(len(data) - lost)
        case _:
            data[lost : lost + 500] = bytes(len(data[lost : lost + 500]))
    path.write_bytes(data)


def lose_wal_tail(database: Path, chance: random.Random) -> int:
    """Cut at a random byte behind what a checkpoint has synced. Returns how many bytes went."""
    wal = database.with_name(database.name + "-wal")
    size_bytes = wal.stat().st_size if wal.exists() else 0
    if size_bytes <= WAL_HEAD_BYTES:
        return 0
    index = database.with_name(database.name + "-shm").read_bytes()
    frames = max(struct.unpack_from("=I", index, at)[0] for at in _CHECKPOINTED_OFFSETS)
    with wal.open("r+b") as file:
        (page_bytes,) = struct.unpack(">I", file.read(12)[8:12])
        durable = WAL_HEAD_BYTES + frames * (FRAME_HEAD_BYTES + page_bytes) if frames else 0
        kept = chance.randrange(min(durable, size_bytes), size_bytes + 1)
        file.truncate(kept)
    return size_bytes - kept
