"""The log of one member, in memory: entries behind a compacted beginning.

Source    D. Ongaro, J. Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014,
          sections 5.3 and 7
Promises  Indices are dense: the entry behind index i has index i + 1. Terms never fall. A batch
          that the log already holds changes nothing, however late or often it arrives.
Does not  Know what is durable or committed; the member that owns it does.
"""

from bisect import bisect_right
from collections.abc import Sequence

from primacy.consensus.machine import Entry, SnapshotMeta
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, Term


def _term_of(entry: Entry) -> int:
    return entry.term


class Log:
    """`base_index` is the last compacted place (0: none); entries follow it without a gap."""

    __slots__ = ("_entries", "base_index", "base_term", "last_index")

    def __init__(self, snapshot: SnapshotMeta, entries: Sequence[Entry]) -> None:
        self.base_index: LogIndex = snapshot.index
        self.base_term: Term = snapshot.term
        self._entries: list[Entry] = []
        if entries and _continues(snapshot, entries):
            if entries[0].index <= snapshot.index:
                self.base_index, self.base_term = entries[0].index, entries[0].term
                entries = entries[1:]
            self._entries = list(entries)
        self.last_index = LogIndex(self.base_index + len(self._entries))

    @property
    def last_term(self) -> Term:
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: int) -> Term | None:
        """The term of the entry at `index`; None where the log does not reach or was compacted."""
        place = index - self.base_index
        if place == 0:
            return self.base_term
        if 0 < place <= len(self._entries):
            return self._entries[place - 1].term
        return None

    def slice(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries from `first` to `last`, both included. All must be held."""
        return tuple(self._entries[first - self.base_index - 1 : last - self.base_index])

    def batch(self, first: int, *, entries_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from `first` on, within both bounds, but at least one if there is one."""
        start = first - self.base_index - 1
        found = self._entries[start : start + entries_max]
        size_bytes = 0
        for count, entry in enumerate(found):
            size_bytes += len(entry.data)
            if size_bytes > bytes_max and count:
                return tuple(found[:count])
        return tuple(found)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries behind the last."""
        if entries:
            self._entries.extend(entries)
            self.last_index = entries[-1].index

    def new_of(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those of `entries`, which fit behind an entry held here, that this log does not hold.

        A shorter or equal batch that matches yields nothing: it never shortens the log.
        """
        if entries and entries[0].index == self.last_index + 1:
            return entries
        for count, entry in enumerate(entries):
            if self.term_at(entry.index) != entry.term:
                return entries[count:]
        return ()

    def truncate_from(self, index: int) -> None:
        """Void `index` and everything behind it."""
        if index <= self.base_index:
            raise InvariantBroken(
                "committed-is-kept", f"truncation at {index}, compacted up to {self.base_index}"
            )
        del self._entries[index - self.base_index - 1 :]
        self.last_index = LogIndex(self.base_index + len(self._entries))

    def compact_to(self, index: int) -> None:
        """Forget everything up to `index`, which a snapshot holds."""
        place = index - self.base_index
        if place > 0:
            self.base_term = self._entries[place - 1].term
            self.base_index = LogIndex(index)
            del self._entries[:place]

    def restart_behind(self, snapshot: SnapshotMeta) -> None:
        """Void everything: the log goes on behind `snapshot`."""
        self._entries.clear()
        self.base_index, self.base_term = snapshot.index, snapshot.term
        self.last_index = snapshot.index

    def last_not_above(self, index: int, term: int) -> tuple[LogIndex, Term]:
        """The last place up to `index` whose term is at most `term`: the farthest on which a
        log that has `term` at `index` can agree with this one. Bounded below by the base."""
        count = min(index, self.last_index) - self.base_index
        if count > 0:
            place = bisect_right(self._entries, term, 0, count, key=_term_of)
            if place:
                found = self._entries[place - 1]
                return found.index, found.term
        return self.base_index, self.base_term


def _continues(snapshot: SnapshotMeta, entries: Sequence[Entry]) -> bool:
    """Whether the entries go on from the snapshot, or reach through it and agree with it."""
    if entries[0].index > snapshot.index:
        if entries[0].index != snapshot.index + 1:
            raise InvariantBroken(
                "log-is-dense", f"snapshot {snapshot.index}, first entry {entries[0].index}"
            )
        return True
    if entries[-1].index < snapshot.index:
        return False
    return entries[snapshot.index - entries[0].index].term == snapshot.term
