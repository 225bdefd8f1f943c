"""GTIDs and sets of them: which transactions, named so that every node means the same. Pure.

    a@1:1-100,b@3:101-250          ours: node@epoch, then the indexes of the log
    3e11fa47-...-c80aa9429562:1-5:7   MySQL's: UUID, then intervals
    0-1-5                          MariaDB's: a position: domain 0 up to 5, server 1 wrote last

Promises  A set has one form: sources in order, intervals sorted, disjoint and never adjacent; equal
          sets are equal values and print the same. What cannot be read is `Rejected`, with the
          column and what stands there.
Does not  Know what a log is. Two histories never share a source: an epoch has one primary.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

from primacy.errors import Rejected
from primacy.model import Epoch, NodeId

NUMBER_MAX = (1 << 63) - 2
"""Of a transaction: MySQL's own bound, and the reach of a signed 64-bit number."""

TEXT_CHARS_MAX = 4 << 20
"""Of a set as text: what MySQL's `gtid_executed` stays below on servers of many years."""

_SOURCE = re.compile(
    r"(?P<own>[a-z][a-z0-9-]{0,31}@[1-9][0-9]{0,18})"
    r"|(?P<uuid>[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
    r"|(?P<domain>[0-9]{1,10})"
)
_INTERVAL = re.compile(r"\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?")
_POSITION = re.compile(r"([0-9]{1,10})-([0-9]{1,10})-([0-9]{1,20})")

Interval = tuple[int, int]
"""First and last, both included."""

Intervals = tuple[Interval, ...]


class Gtid(NamedTuple):
    """One transaction: the log that it was written to, and its number there."""

    source: str
    number: int

    def __str__(self) -> str:
        return f"{self.source}:{self.number}"


def source_of(node: NodeId, epoch: Epoch) -> str:
    """The name of what `node` wrote as the primary of `epoch`."""
    return f"{node}@{epoch}"


def node_and_epoch(source: str) -> tuple[NodeId, Epoch]:
    """The other way round. `Rejected` for a source of another database."""
    node, at, epoch = source.partition("@")
    if not at or not _SOURCE.fullmatch(source):
        raise Rejected(f"{source!r} is not node@epoch", hint="Name it such as b@3.")
    return NodeId(node), Epoch(int(epoch))


@dataclass(frozen=True, slots=True)
class GtidSet:
    """Make one with `of` or `parse`; `parts` is in canonical form."""

    parts: tuple[tuple[str, Intervals], ...] = ()

    @classmethod
    def of(cls, intervals: Mapping[str, Iterable[Interval]]) -> "GtidSet":
        """Intervals in any order; they may overlap."""
        made = ((source, _merged(each)) for source, each in intervals.items())
        kept = [(source, each) for source, each in made if each]
        return cls(tuple(sorted(kept, key=lambda part: _order(part[0]))))

    @classmethod
    def parse(cls, text: str) -> "GtidSet":
        """Ours and MySQL's form. The empty text is the empty set."""
        return cls.of(_read(text))

    def __str__(self) -> str:
        return ",".join(
            ":".join([source, *(_printed(each) for each in intervals)])
            for source, intervals in self.parts
        )

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __contains__(self, gtid: Gtid) -> bool:
        return any(first <= gtid.number <= last for first, last in self.intervals_of(gtid.source))

    def __iter__(self) -> Iterator[Gtid]:
        """Each transaction: for sets that are known to be small."""
        for source, intervals in self.parts:
            for first, last in intervals:
                for number in range(first, last + 1):
                    yield Gtid(source, number)

    def __or__(self, other: "GtidSet") -> "GtidSet":
        return self.of(
            {
                source: chain(self.intervals_of(source), other.intervals_of(source))
                for source in {*self.sources, *other.sources}
            }
        )

    def __sub__(self, other: "GtidSet") -> "GtidSet":
        """What this set has and the other has not."""
        return self.of(
            {source: _without(each, other.intervals_of(source)) for source, each in self.parts}
        )

    def __and__(self, other: "GtidSet") -> "GtidSet":
        return self - (self - other)

    def __le__(self, other: "GtidSet") -> bool:
        """Whether the other has all of this set."""
        return not self - other

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(source for source, _ in self.parts)

    @property
    def count(self) -> int:
        return sum(last - first + 1 for _, each in self.parts for first, last in each)

    def intervals_of(self, source: str) -> Intervals:
        return next((each for name, each in self.parts if name == source), ())


class DomainPosition(NamedTuple):
    """How far one domain of a MariaDB server is, and which server wrote its last transaction."""

    domain: int
    server_id: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server_id}-{self.sequence}"


def parse_mariadb(text: str) -> tuple[DomainPosition, ...]:
    """A position such as `0-1-42,5-2-7`, in the order of domains. Each domain stands once."""
    positions: dict[int, DomainPosition] = {}
    for column, item in _items(text):
        match = _POSITION.fullmatch(item)
        if match is None:
            raise _malformed(text, column, item, "expected domain-server-sequence, such as 0-1-42")
        domain, server_id, sequence = (int(each) for each in match.groups())
        if max(domain, server_id) >= 1 << 32 or not 1 <= sequence <= NUMBER_MAX:
            rule = f"domain and server are below 2^32, a sequence is 1 to {NUMBER_MAX}"
            raise _malformed(text, column, item, rule)
        if domain in positions:
            raise _malformed(text, column, item, f"domain {domain} stands there twice")
        positions[domain] = DomainPosition(domain, server_id, sequence)
    return tuple(sorted(positions.values()))


def print_mariadb(positions: Iterable[DomainPosition]) -> str:
    return ",".join(str(each) for each in sorted(positions))


def set_of_mariadb(positions: Iterable[DomainPosition]) -> GtidSet:
    """As MariaDB itself compares: a domain's sequence covers all up to it, whoever wrote them."""
    return GtidSet.of({str(each.domain): [(1, each.sequence)] for each in positions})


# ---- intervals ------------------------------------------------------------------------------


def _merged(intervals: Iterable[Interval]) -> Intervals:
    merged: list[Interval] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def _without(intervals: Intervals, holes: Intervals) -> Iterator[Interval]:
    """Both sorted and disjoint, so one pass over each is enough."""
    place = 0
    for first, last in intervals:
        while place < len(holes) and holes[place][1] < first:
            place += 1
        begin, each = first, place
        while each < len(holes) and holes[each][0] <= last:
            if begin < holes[each][0]:
                yield begin, holes[each][0] - 1
            begin = holes[each][1] + 1
            each += 1
        if begin <= last:
            yield begin, last


def _order(source: str) -> tuple[int, int, str]:
    """Ours by epoch, so that a set reads as the history went; then domains; then UUIDs."""
    name, at, epoch = source.partition("@")
    if at:
        return 0, int(epoch), name
    return (1, int(source), "") if source.isdigit() else (2, 0, source)


# ---- text -----------------------------------------------------------------------------------


def _printed(interval: Interval) -> str:
    first, last = interval
    return str(first) if first == last else f"{first}-{last}"


def _read(text: str) -> dict[str, list[Interval]]:
    found: dict[str, list[Interval]] = {}
    for column, item in _items(text):
        source, colon, rest = item.partition(":")
        match = _SOURCE.fullmatch(source.strip())
        if match is None:
            rule = "expected a source: node@epoch, a UUID, or a domain's number"
            raise _malformed(text, column, item, rule)
        if not colon:
            raise _malformed(text, column, item, "expected a colon and intervals behind the source")
        name = str(int(match.group())) if match["domain"] else match.group().lower()
        intervals = found.setdefault(name, [])
        at = column + len(source) + 1
        for part in rest.split(":"):
            intervals.append(_interval(text, at, part))
            at += len(part) + 1
    return found


def _interval(text: str, column: int, part: str) -> Interval:
    match = _INTERVAL.fullmatch(part)
    if match is None:
        raise _malformed(text, column, part, "expected a number or an interval, such as 7 or 1-5")
    if len(match[1]) > 19 or len(match[2] or "") > 19:
        raise _malformed(text, column, part, f"a number is at most {NUMBER_MAX}")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if not 1 <= first <= last <= NUMBER_MAX:
        rule = f"an interval begins at 1 or above, is not reversed, and ends by {NUMBER_MAX}"
        raise _malformed(text, column, part, rule)
    return first, last


def _items(text: str) -> Iterator[tuple[int, str]]:
    """What commas part, with the column at which each begins, from 1. MySQL breaks its lines."""
    if len(text) > TEXT_CHARS_MAX:
        raise Rejected(
            f"a GTID set of {len(text)} characters exceeds the limit of {TEXT_CHARS_MAX}",
            hint="Check that this is a GTID set.",
        )
    if not text.strip():
        return
    edges = [-1, *(place for place, letter in enumerate(text) if letter == ","), len(text)]
    for before, behind in pairwise(edges):
        item = text[before + 1 : behind]
        yield before + 2 + len(item) - len(item.lstrip()), item.strip()


def _malformed(text: str, column: int, item: str, rule: str) -> Rejected:
    shown = item if len(item) <= 60 else f"{item[:57]}..."
    where = (
        f"column {column} of {len(text)}" if item.strip() else f"column {column}, where nothing is"
    )
    return Rejected(f"malformed GTIDs at {where}: {shown!r}", hint=f"There, {rule}.")
