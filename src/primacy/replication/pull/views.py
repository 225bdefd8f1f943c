"""What a door shows of its receivers, to people and to the brain."""

from dataclasses import dataclass

from primacy.model import Incarnation, NodeId
from primacy.replication.log.record import Point
from primacy.replication.pull.lag import Lag
from primacy.replication.pull.messages import Hello
from primacy.replication.pull.source import SourceSession


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverView:
    """One attached receiver, for people and for the brain."""

    node: NodeId
    incarnation: Incarnation
    peer: str
    received: Point
    applied: Point | None
    """None: it has not said yet."""
    acknowledges: bool
    sent: int
    """The index of the last record that was handed to its connection."""
    lag: Lag


def view_of(session: SourceSession, hello: Hello, peer: str, lag: Lag) -> ReceiverView:
    """Of a session whose receiver has said `hello`."""
    report = session.last_report
    return ReceiverView(
        node=hello.node,
        incarnation=hello.incarnation,
        peer=peer,
        received=report.received if report is not None else hello.point,
        applied=report.applied if report is not None else None,
        acknowledges=report is not None and report.acknowledges,
        sent=session.sent,
        lag=lag,
    )


@dataclass
class DoorCounts:
    """What an operator can see of a door; all since the start."""

    sent_bytes: int = 0
    reads: int = 0
    """Of the log, for receivers that were not level with it."""
    refused: int = 0
    ended: int = 0
    damage: str = ""
    """What of the log could not be read for a receiver, where it was damaged. It does not heal."""
