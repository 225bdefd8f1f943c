"""Moments that matter, for faults that strike at exactly one of them.

A random moment seldom hits the millisecond between two steps of a protocol. A fault that waits for
a named moment does, and still knows nothing of what a machine is about to do.
"""

from collections.abc import Callable
from enum import Enum

from primacy.model import NodeId


class Moment(Enum):
    """What a database, a voter, or the first member to apply a revision has just made true; or
    what a node is about to ask the store for."""

    CLAIMED = "a primary record was created"
    VACANT = "a primary record ended"
    RECORDED = "a primary recorded a durability record"
    SEALED = "a node published its seal"
    ROW = "an epoch row was written"
    OPENED = "doors were opened"
    MARKED = "a marker was written"
    CLONED = "a clone was taken"
    VOTED = "a vote was granted"
    LED = "a member leads the store"
    INSTALLED = "a member took a snapshot of the store"
    CLAIM_SENT = "a claim was sent"
    SWAP_SENT = "a swap of the durability record was sent"
    OFFER_SENT = "an offer of the lead was sent"
    OFFERED = "the lead was offered to a replica"
    LOCKED_OUT = "a replica was locked out"
    LET_IN = "a replica was let in again"
    COUNTED = "a replica began to acknowledge"


SENT = frozenset({Moment.CLAIM_SENT, Moment.SWAP_SENT, Moment.OFFER_SENT})
"""What is asked for at these moments is not on its way yet."""

Deed = Callable[[NodeId], None]


class Moments:
    """Who waits for which moment. Each deed happens once, with the node that the moment is about;
    it is called in the middle of a step, so it must put off what ends that step's process."""

    def __init__(self) -> None:
        self._waiting: dict[Moment, list[Deed]] = {}

    def at_next(self, moment: Moment, deed: Deed) -> None:
        self._waiting.setdefault(moment, []).append(deed)

    def clear(self) -> None:
        self._waiting.clear()

    def has_come(self, moment: Moment, node: NodeId) -> None:
        for deed in self._waiting.pop(moment, ()):
            deed(node)
