"""What clients of the store were told, held against what the log says happened.

The cheap form of a linearizability check, complete for what it looks at: every answer names a
revision, revisions are the order in which things happened, and that order must agree with the
clients' own (what finished before something began comes before it), and with the values read.
An operation without an answer says nothing.
"""

from bisect import bisect_right

from primacy.coordination.api import Change, KeyValue, RangeResult
from primacy.errors import InvariantBroken
from primacy.model import Revision

NAME = "linearizable-store"


class StoreHistory:
    """Values of every key at every revision, and the newest revision that anybody was told of."""

    def __init__(self) -> None:
        self.revision = Revision(0)
        self._told = Revision(0)
        self._revisions: dict[str, list[int]] = {}
        self._values: dict[str, list[KeyValue | None]] = {}
        self.checked_count = 0

    def applied(self, revision: Revision, changes: tuple[Change, ...]) -> None:
        """The next revision, from whichever member applied it first."""
        self.revision = revision
        for change in changes:
            self._revisions.setdefault(change.key, []).append(revision)
            self._values.setdefault(change.key, []).append(change.after)

    def begin(self) -> Revision:
        """A client asks something now: the answer must not be older than this."""
        return self._told

    def read(self, asked: Revision, key: str, result: RangeResult) -> None:
        """A linearizable read has been answered."""
        self._follows(asked, result.revision)
        for item in result.items:
            held = self._value_at(item.key, result.revision)
            if held != item:
                raise InvariantBroken(NAME, f"read {item} at {result.revision}, it was {held}")
        if not result.items and self._value_at(key, result.revision) is not None:
            raise InvariantBroken(NAME, f"read nothing of {key!r} at {result.revision}")

    def wrote(self, asked: Revision, revision: Revision) -> None:
        """A transaction has been answered."""
        self._follows(asked, revision)

    def _follows(self, asked: Revision, revision: Revision) -> None:
        self.checked_count += 1
        if revision < asked:
            raise InvariantBroken(
                NAME, f"answered at revision {revision}, but {asked} was known when it was asked"
            )
        if revision > self.revision:
            raise InvariantBroken(NAME, f"revision {revision} was never applied")
        self._told = max(self._told, revision)

    def _value_at(self, key: str, revision: Revision) -> KeyValue | None:
        revisions = self._revisions.get(key)
        if revisions is None:
            return None
        place = bisect_right(revisions, revision)
        return self._values[key][place - 1] if place else None
