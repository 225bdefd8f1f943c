"""What a peer sent, judged before a byte of it is written. Pure."""

from collections.abc import Sequence

from primacy.errors import Conflict, Corrupt
from primacy.replication.log.record import (
    HEADER_BYTES,
    Kind,
    Point,
    epoch_start,
    follow,
    header_at,
    is_sound,
    length_at,
    plain_run,
    source_id,
)
from primacy.replication.log.spans import Span


def judged(data: bytes, *, after: Point, spans: Sequence[Span]) -> tuple[Point, list[Span]]:
    """Where `data` ends, and the epochs that begin in it. `Corrupt` unless it is whole records with
    right checksums; `Conflict` unless they continue the history at `after`."""
    end, starts, offset = after, list[Span](), 0
    source = source_id(spans[-1].node) if spans else b""
    while True:
        offset, end = plain_run(data, offset, after=end, source=source)
        if offset >= len(data):
            return end, starts
        length = length_at(data, offset)
        if not is_sound(data, offset, length):
            raise Corrupt(
                f"received bytes are damaged: at {offset} of {len(data)} no whole record begins",
                hint="Close the connection and ask again from the own end.",
            )
        header = header_at(data, offset)
        end = follow(header, data, offset, after=end)
        if header.kind is Kind.EPOCH:
            start = epoch_start(data[offset + HEADER_BYTES : offset + length])
            starts.append(Span(header.epoch, start.node, header.index))
            source = source_id(start.node)
        if header.source != source or header.kind is Kind.GTID_LIST:
            raise Conflict(
                f"record {end.position} ({header.kind.name}) is not by the primary of its epoch",
                hint="The sender's log is not one that a primary wrote. Clone this node.",
            )
        offset += length
