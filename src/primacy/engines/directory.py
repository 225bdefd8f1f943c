"""The data directory: whose it is, how it is replaced. The same for all engines.

    incoming (whole, marked) --rename--> data --rename--> old-data --removed by `forget_old`

Promises  A data directory without our mark, or with that of another node, cluster or engine, is
          FOREIGN and never touched. `data` is replaced whole or not at all: after a crash between
          the renames `restore_old` puts back what was there.
Does not  Sync what is inside `incoming`: whoever filled it has.
"""

import secrets
import shutil
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from primacy.engines.api import ServerState
from primacy.engines.layout import Layout
from primacy.errors import Conflict, Rejected
from primacy.model import Incarnation
from primacy.runtime.files import free_bytes, replace_file, sync_directory

MARK_NAME = "primacy.json"
MARK_MODE = 0o644

FULL_BYTES = 8 << 20
"""With less free space the next write of the server may wait for ever."""
FREE_AGAIN_BYTES = 3 * FULL_BYTES
"""So much more must be free before a full disk counts as free again."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Stands in every data directory that primacy made. Engines add fields with defaults."""

    format: int = 1
    engine: str = "mariadb"
    """Marks of the first releases do not say it."""
    cluster: str
    node: str
    incarnation: Incarnation


M = TypeVar("M", bound=Mark)


def new_incarnation() -> Incarnation:
    return Incarnation(secrets.token_hex(16))


class DataDirectory(Generic[M]):
    """The files of one node. The methods block: they belong into a thread."""

    def __init__(
        self, layout: Layout, *, cluster: str, node: str, engine: str, marks: type[M]
    ) -> None:
        self.cluster = cluster
        self.node = node
        self.engine = engine
        self._layout = layout
        self._marks = marks
        self._mark: M | None = None
        self._is_full = False

    def state(self) -> tuple[ServerState, str]:
        """ABSENT, FOREIGN or STOPPED, with the reason in words."""
        data = self._layout.data
        if not data.exists() or (data.is_dir() and not any(data.iterdir())):
            return ServerState.ABSENT, "no data directory yet"
        mark = self.mark()
        if mark is None:
            return ServerState.FOREIGN, f"{data} has data and no mark of primacy"
        if (mark.cluster, mark.node) != (self.cluster, self.node):
            whose = f"node {mark.node} of cluster {mark.cluster}"
            return ServerState.FOREIGN, f"{data} belongs to {whose}"
        if mark.engine != self.engine:
            return ServerState.FOREIGN, f"{data} belongs to the engine {mark.engine}"
        return ServerState.STOPPED, ""

    def is_full(self, *, full_bytes: int = FULL_BYTES) -> bool:
        """From a disk with almost no space until it has some again, for whom the server runs as."""
        needed_bytes = full_bytes + (FREE_AGAIN_BYTES if self._is_full else 0)
        places = (self._layout.root, self._layout.data)
        self._is_full = any(_lacks(each, needed_bytes) for each in places)
        return self._is_full

    def mark(self) -> M | None:
        """None where there is no mark, or one that cannot be read."""
        if self._mark is None:
            try:
                content = (self._layout.data / MARK_NAME).read_bytes()
                self._mark = msgspec.json.decode(content, type=self._marks)
            except (OSError, msgspec.DecodeError, msgspec.ValidationError):
                return None
        return self._mark

    def replace_mark(self, mark: M) -> None:
        """Of the data that stand there: durable when it returns."""
        self._write_mark(self._layout.data, mark)
        self._mark = mark

    def clear_incoming(self) -> Path:
        """An empty folder beside `data`."""
        incoming = self._layout.incoming
        if incoming.exists():
            shutil.rmtree(incoming)
        incoming.mkdir(mode=0o700, parents=True)
        return incoming

    def adopt(self, mark: M) -> None:
        """`incoming` becomes `data` with this mark; what was there goes aside. `Rejected` where
        that is FOREIGN: then nothing has changed."""
        layout = self._layout
        has_data = self.state()[0] is not ServerState.ABSENT
        if has_data:
            self.check_is(ServerState.STOPPED)
        self._write_mark(layout.incoming, mark)
        self.hand_over(layout.incoming)
        sync_directory(layout.incoming)
        if has_data:
            if layout.old_data.exists():
                shutil.rmtree(layout.old_data)
            layout.data.rename(layout.old_data)
            sync_directory(layout.root)
        elif layout.data.exists():
            layout.data.rmdir()
        layout.incoming.rename(layout.data)
        sync_directory(layout.root)
        self._mark = None

    def hand_over(self, incoming: Path) -> None:
        """To the user that the server runs as, before it is renamed: an engine may have one."""

    def restore_old(self) -> None:
        """After a crash between the two renames of `adopt`: the old data stand again."""
        layout = self._layout
        if layout.old_data.exists() and not layout.data.exists():
            layout.old_data.rename(layout.data)
            sync_directory(layout.root)
            self._mark = None

    @property
    def has_old_data(self) -> bool:
        return self._layout.old_data.exists()

    def forget_old(self) -> None:
        """Not while there is nothing else: then `restore_old` comes first."""
        if self._layout.old_data.exists() and self._layout.data.exists():
            shutil.rmtree(self._layout.old_data)

    def check_is(self, wanted: ServerState) -> None:
        """`Rejected` for FOREIGN data, `Conflict` for any other state."""
        state, why = self.state()
        if state is ServerState.FOREIGN:
            raise Rejected(why, hint="primacy never touches it. Move it, or name another folder.")
        if state is not wanted:
            raise Conflict(
                f"{self._layout.data} is {state.name}, not {wanted.name}", hint="Observe again."
            )

    def _write_mark(self, folder: Path, mark: M) -> None:
        replace_file(folder / MARK_NAME, [msgspec.json.encode(mark)], mode=MARK_MODE)


def _lacks(place: Path, needed_bytes: int) -> bool:
    """A disk that does not even say how much is left leads nothing either."""
    try:
        return free_bytes(place) < needed_bytes
    except FileNotFoundError:
        return False  # Not made yet, or a clone is just putting another in its place.
    except OSError:
        return True
