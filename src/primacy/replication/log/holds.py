"""Who still needs what of the log: a purge removes nothing that is held.

Promises  A hold survives a restart, perhaps at an older index, which keeps more. `holds.json` is
          written when a name comes, goes back or goes, and before a purge goes by a newer index;
          what could not be written is written by the next call.
"""

from pathlib import Path

import msgspec

from primacy.errors import Rejected
from primacy.replication.log.segments import corrupt
from primacy.runtime.files import replace_file

VERSION = 1

HOLDS_MAX = 256
"""Names: replicas and backups of one node, many times over."""


class _Stored(msgspec.Struct, frozen=True):
    version: int
    holds: dict[str, int]


class Holds:
    """Blocks where it writes."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "holds.json"
        self._indexes = _read(self._path)
        self._written = dict(self._indexes)

    @property
    def indexes(self) -> dict[str, int]:
        """By name: each has everything up to its index."""
        return dict(self._indexes)

    def hold(self, name: str, index: int) -> None:
        if name not in self._indexes and len(self._indexes) >= HOLDS_MAX:
            raise Rejected(
                f"the log is held by {HOLDS_MAX} names already: {name} would be one more",
                hint="Release what nobody needs.",
            )
        self._indexes[name] = index
        written = self._written.get(name)
        if written is None or index < written:
            self.write()

    def release(self, name: str) -> None:
        """One that is not there is released already."""
        self._indexes.pop(name, None)
        if name in self._written:
            self.write()

    def lower(self, index: int) -> None:
        """The log ends at `index`: whoever had more of it does not have what will follow."""
        above = [name for name, held in self._indexes.items() if held > index]
        for name in above:
            self._indexes[name] = index
        if above:
            self.write()

    def write(self) -> None:
        """What stands in memory is what a restart will find."""
        if self._indexes != self._written:
            replace_file(self._path, [msgspec.json.encode(_Stored(VERSION, self._indexes))])
            self._written = dict(self._indexes)


def _read(path: Path) -> dict[str, int]:
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise corrupt(path, 0, str(error)) from error
    if stored.version != VERSION:
        raise Rejected(
            f"{path} has version {stored.version}, this primacy reads {VERSION}",
            hint="Nothing was changed. Run the release that wrote it, or a newer one.",
        )
    return stored.holds
