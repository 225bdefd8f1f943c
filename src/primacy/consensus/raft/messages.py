"""Every message of Raft, one Struct each.

Each carries the sender's term and the sender's incarnation, so that a receiver can tell an old
leader from a new one, and one life of a disk from the next, before it believes anything else.
`msgspec.msgpack.Decoder(Message)` reads them back. The structs are arrays on the wire: a later
version may add fields at the end, with defaults, and nowhere else.
"""

import msgspec

from primacy.consensus.machine import Entry
from primacy.model import LogIndex, Term


class Hello(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A member with a blank disk asks: do you know another life of me?"""

    term: Term
    incarnation: str


class HelloReply(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """No other life of `to_incarnation` is known here, and this one is now durably noted."""

    term: Term
    incarnation: str
    to_incarnation: str


class Refusal(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The sender knows another life of the receiver than `refused_incarnation`."""

    term: Term
    incarnation: str
    refused_incarnation: str
    reason: str


class PreVoteRequest(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Would you vote for me in `term` + 1? Nobody's term changes by asking."""

    term: Term
    incarnation: str
    last_index: LogIndex
    last_term: Term


class PreVoteReply(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Answers the request for `for_term`. `term` is the sender's own, so that a candidate that
    has fallen behind catches up."""

    term: Term
    incarnation: str
    for_term: Term
    is_granted: bool


class VoteRequest(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """RequestVote of the paper. `is_transfer`: the old leader asked for this election itself."""

    term: Term
    incarnation: str
    last_index: LogIndex
    last_term: Term
    is_transfer: bool


class VoteReply(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A granted vote of `term` is durable where it comes from."""

    term: Term
    incarnation: str
    is_granted: bool


class Append(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """AppendEntries of the paper. `is_notice`: it only spreads the commit index, and is answered
    only where it does not fit."""

    term: Term
    incarnation: str
    prev_index: LogIndex
    prev_term: Term
    entries: tuple[Entry, ...]
    commit_index: LogIndex
    is_notice: bool = False


class AppendReply(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Everything up to `match_index` is durable at the sender and equals the leader's log."""

    term: Term
    incarnation: str
    match_index: LogIndex


class AppendRejected(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The append behind `prev_index` does not fit. The logs may agree up to `hint_index`, where
    the sender's log has an entry of `hint_term`, and nowhere behind it."""

    term: Term
    incarnation: str
    prev_index: LogIndex
    hint_index: LogIndex
    hint_term: Term


class Heartbeat(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """I lead. `commit_index` is never above what the receiver has acknowledged; `round` numbers
    the broadcast, so that a reply proves leadership after a known moment."""

    term: Term
    incarnation: str
    commit_index: LogIndex
    round: int


class HeartbeatReply(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """You led in `term` when your broadcast `round` arrived."""

    term: Term
    incarnation: str
    round: int


class TimeoutNow(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Your log is whole: campaign at once, I hand over."""

    term: Term
    incarnation: str


Message = (
    Hello
    | HelloReply
    | Refusal
    | PreVoteRequest
    | PreVoteReply
    | VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | AppendRejected
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
)
