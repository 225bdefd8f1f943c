"""Which primary wrote which part of a log. Pure.

A log is one sequence over all epochs; each epoch has one primary, so a few spans name all of it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from primacy.errors import Rejected
from primacy.model import Epoch, NodeId
from primacy.replication.gtid import Gtid, GtidSet, node_and_epoch, source_of


@dataclass(frozen=True, slots=True)
class Span:
    """From its first record to the one before the next span's."""

    epoch: Epoch
    node: NodeId
    first: int

    @property
    def source(self) -> str:
        return source_of(self.node, self.epoch)


def spans_of(gtids: GtidSet, *, last: int) -> list[Span]:
    """The spans of a set that is everything up to `last`. `Rejected` for any other set."""
    spans: list[Span] = []
    expected = 1
    for source, intervals in gtids.parts:
        node, epoch = node_and_epoch(source)
        if len(intervals) != 1 or intervals[0][0] != expected:
            break
        spans.append(Span(epoch, node, expected))
        expected = intervals[0][1] + 1
    if gtids.count != last or expected != last + 1:
        raise Rejected(
            f"{str(gtids) or 'the empty set'} is not one history without gaps up to {last}",
            hint="Take the set and the point from one snapshot of one node.",
        )
    return spans


def gtids_of(spans: Sequence[Span], *, last: int) -> GtidSet:
    """Everything up to `last`."""
    found: dict[str, list[tuple[int, int]]] = {}
    end = last
    for span in reversed(spans):
        if span.first <= end:
            found[span.source] = [(span.first, end)]
            end = span.first - 1
    return GtidSet.of(found)


def span_at(spans: Sequence[Span], index: int) -> Span:
    """The one that holds `index`."""
    return spans[bisect_right(spans, index, key=_first) - 1]


def gtid_at(spans: Sequence[Span], index: int) -> Gtid:
    return Gtid(span_at(spans, index).source, index)


def _first(span: Span) -> int:
    return span.first
