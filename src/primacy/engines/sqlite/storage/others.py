"""Whether somebody else has written to the database file while we have it open.

Each transaction of ours writes the position row, so the WAL says it: the last one in it that does
not touch that row's page is a stranger's. A checkpoint by somebody else changes nothing, and is no
offence. What a stranger wrote and moved into the file, so that the WAL is empty, is found later, by
the first record that meets it.

Source  https://www.sqlite.org/walformat.html
"""

import struct
from pathlib import Path

import apsw

from primacy.engines.sqlite.storage import position
from primacy.engines.sqlite.storage.failures import RECLONE, ChangedByOthers
from primacy.replication.log.record import Point

_HEAD = struct.Struct(">IIII8s")
_HEAD_BYTES = 32
_FRAME = struct.Struct(">II8s")
_FRAME_BYTES = 24


def check(connection: apsw.Connection, expected: Point) -> None:
    """`ChangedByOthers` where it holds more than what was committed here, up to `expected`. Inside
    a transaction, before anything is written."""
    found = position.read(connection)
    path = Path(connection.filename)
    if found == expected and not _ends_with_a_strangers(path, position.page(connection)):
        return
    raise ChangedByOthers(
        f"somebody else wrote to {path}, past the log (it stands at {found.position})",
        hint=f"Only primacy may write to that file. {RECLONE}",
    )


def _ends_with_a_strangers(path: Path, own_page: int) -> bool:
    """By the frames' heads. SQLite locks the database file and the WAL's index, never the WAL: it
    may be opened and closed here without taking those locks away."""
    wal = path.with_name(path.name + "-wal")
    if not wal.exists():
        return True  # Nobody may remove it while we have the file open.
    data = wal.read_bytes()
    if len(data) < _HEAD_BYTES:
        return False
    _, _, page_bytes, _, salts = _HEAD.unpack_from(data)
    is_own = is_strangers = False
    for offset in range(_HEAD_BYTES, len(data) - _FRAME_BYTES + 1, _FRAME_BYTES + page_bytes):
        page, pages_at_commit, frame_salts = _FRAME.unpack_from(data, offset)
        if frame_salts != salts:
            break  # Of an earlier use of the file.
        is_own = is_own or page == own_page
        if pages_at_commit:
            is_strangers, is_own = not is_own, False
    return is_strangers
