"""What a door shows of its receivers, to people and to the brain."""

from dataclasses import dataclass

from primacy.model import Incarnation, NodeId
from primacy.replication.log.record import Point
from primacy.replication.pull.lag import Lag


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


@dataclass
class DoorCounts:
    """What an operator can see of a door; all since the start."""

    sent_bytes: int = 0
    reads: int = 0
    """Of the log, for receivers that were not level with it."""
    refused: int = 0
    ended: int = 0
