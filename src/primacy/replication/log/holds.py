"""Who still needs what of the log: a purge removes nothing that is held.

Promises  A hold survives a restart, perhaps at an older index, which keeps more. `holds.json` is
          written when a name comes, goes back or goes, and before a purge goes by a newer index.
"""

from pathlib import Path

import msgspec

from primacy.errors import Rejected
from primacy.replication.log.segments import corrupt
from primacy.runtime.files import replace_file

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
        before = self._indexes.get(name)
        if before is None and len(self._indexes) >= HOLDS_MAX:
            raise Rejected(
                f"the log is held by {HOLDS_MAX} names already: {name} would be one more",
                hint="Release what nobody needs.",
            )
        self._indexes[name] = index
        if before is None or index < self._written.get(name, 0):
            self.write()

    def release(self, name: str) -> None:
        """One that is not there is released already."""
        if self._indexes.pop(name, None) is not None:
            self.write()

    def write(self) -> None:
        """What stands in memory is what a restart will find."""
        if self._indexes != self._written:
            replace_file(self._path, [msgspec.json.encode(_Stored(1, self._indexes))])
            self._written = dict(self._indexes)


def _read(path: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Stored).holds
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise corrupt(path, 0, str(error)) from error
