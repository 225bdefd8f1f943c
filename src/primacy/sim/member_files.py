"""What one store member keeps on its disk, and how recovery reads it: by the rules of `runtime`.

Promises  A torn tail is cut; any other damage is refused, with its place, and nothing is changed
          (`runtime/wal.py`). A damaged snapshot is passed over where an older one is whole and the
          log reaches back to it (`runtime/storage.py`). Another disk is another life.
"""

import random

from primacy.consensus.machine import Entry, HardState, Persist, SnapshotMeta
from primacy.consensus.raft.node import Restored
from primacy.errors import Corrupt
from primacy.model import LogIndex

ROT = b"\xff"
"""Added to what a rotten entry carries: its checksum does not fit any more."""


class MemberFiles:
    """What survives: one life of one disk."""

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.hard = HardState()
        self.entries: list[Entry] = []
        self.snapshot = SnapshotMeta()
        self.pieces: tuple[bytes, ...] = ()
        self.older: tuple[SnapshotMeta, tuple[bytes, ...]] = (SnapshotMeta(), ())
        """Two are kept."""
        self.rotten: set[LogIndex] = set()
        """Entries whose checksum is wrong."""
        self.is_snapshot_rotten = False

    def persist(self, write: Persist, received: dict[SnapshotMeta, tuple[bytes, ...]]) -> None:
        if write.hard is not None:
            self.hard = write.hard
        if write.snapshot is not None:
            self.entries.clear()
            if write.snapshot != self.snapshot:
                self._keep(write.snapshot, received[write.snapshot])
        if write.entries:
            first = write.entries[0].index
            base = self.entries[0].index if self.entries else first
            del self.entries[max(0, first - base) :]
            self.entries.extend(write.entries)

    def take_snapshot(self, meta: SnapshotMeta, pieces: tuple[bytes, ...]) -> None:
        """A peer's, written beside the own one and renamed; the log is not touched yet."""
        if meta.index > self.snapshot.index:
            self._keep(meta, pieces)

    def save_snapshot(
        self, meta: SnapshotMeta, pieces: tuple[bytes, ...], *, trailing_entries: int
    ) -> None:
        if meta.index <= self.snapshot.index:
            return
        self._keep(meta, pieces)
        while self.entries and self.entries[0].index < meta.index - trailing_entries:
            del self.entries[0]

    def _keep(self, meta: SnapshotMeta, pieces: tuple[bytes, ...]) -> None:
        self.older = (self.snapshot, self.pieces)
        self.snapshot, self.pieces = meta, pieces

    # ---- damage and recovery

    def rot(self, chance: random.Random) -> str:
        """A bit flips, in the log or in the newest snapshot. Returns where, if anywhere."""
        if self.entries and (not self.pieces or chance.random() < 0.7):
            place = chance.randrange(len(self.entries))
            entry = self.entries[place]
            self.entries[place] = Entry(entry.term, entry.index, entry.data + ROT)
            self.rotten.add(entry.index)
            return f"entry {entry.index}"
        if self.pieces:
            self.is_snapshot_rotten = True
            return f"snapshot {self.snapshot.index}"
        return ""

    def restore(self) -> tuple[Restored, tuple[bytes, ...]]:
        """What a start finds, with the pieces of its snapshot. `Corrupt` names the place."""
        self.check()
        if self.is_snapshot_rotten:
            (self.snapshot, self.pieces), self.is_snapshot_rotten = self.older, False
        restored = Restored(self.hard, tuple(self.entries), self.snapshot, self.incarnation)
        return restored, self.pieces

    def check(self) -> None:
        """`Corrupt` where a start must be refused."""
        hint = "Nothing was changed. Remove the directory and let this member join anew."
        if self.rotten:
            raise Corrupt(f"entry {min(self.rotten)} of the log is damaged", hint=hint)
        if not self.is_snapshot_rotten:
            return
        reaches_to = self.entries[0].index if self.entries else self.snapshot.index + 1
        if self.older[0].index + 1 < reaches_to:
            raise Corrupt(f"snapshot {self.snapshot.index} is damaged, no other fits", hint=hint)
