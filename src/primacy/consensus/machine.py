"""What goes into a consensus machine and what comes out of it.

A machine is a function with memory: `step(now_s, event)` changes its state and returns the
effects that the outside world owes it. It never reads a clock, draws a random number or
touches a socket or a disk, so a host can run it over a network and a simulator can run it
over a seed, and neither run differs from the other.

- Time is an argument: seconds on the monotonic clock of this member.
- The disk is a peer. The machine asks for a write (`Persist`) and later hears `Persisted`.
  Nothing that promises durability is sent before that; a machine that waits for the disk
  goes on receiving.
- Effects are carried out in the order in which they are returned.
- After each step the host reads `wake_at_s` and delivers a `Tick` at that time. A tick that
  comes early, late or twice is harmless.
"""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from primacy.model import LogIndex, NodeId, Term

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One place of the log. An empty `data` is the no-op that opens a leader's term."""

    term: Term
    index: LogIndex
    data: bytes


class HardState(msgspec.Struct, frozen=True, kw_only=True):
    """What must survive a crash besides the log."""

    term: Term = Term(0)
    voted_for: NodeId | None = None
    incarnations: dict[NodeId, str] = {}
    """Which life of each peer this member has dealt with. Another life is refused: a voter that
    lost its disk could vote twice."""


class SnapshotMeta(msgspec.Struct, frozen=True, kw_only=True):
    """The last entry that a snapshot holds."""

    index: LogIndex = LogIndex(0)
    term: Term = Term(0)


# ---- events ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """A peer's message arrived. It may be late, repeated, or out of order."""

    sender: NodeId
    message: M


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: perhaps `wake_at_s` has come."""


@dataclass(frozen=True, slots=True)
class Persisted:
    """The write numbered `write_id`, and all before it, are durable."""

    write_id: int


@dataclass(frozen=True, slots=True)
class Propose:
    """Append these commands, in this order, in one batch. Only a leader can."""

    commands: tuple[bytes, ...]
    proposal_id: int
    """Comes back in `Accepted` or `Refused`; the host's own number."""


@dataclass(frozen=True, slots=True)
class ReadIndex:
    """Ask for an index such that a state that has applied it is current (section 6.4 of Ongaro's
    thesis). Answered by `ReadReady` or `Refused`."""

    read_id: int


@dataclass(frozen=True, slots=True)
class TransferLeadership:
    """Hand the lead to `to`; given up after one election timeout."""

    to: NodeId


@dataclass(frozen=True, slots=True)
class SnapshotSaved:
    """The host durably holds a snapshot of everything up to `meta`: the log before it may go."""

    meta: SnapshotMeta


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """The host has finished (or given up) sending the snapshot that `SendSnapshot` asked for."""

    to: NodeId
    meta: SnapshotMeta
    is_delivered: bool


@dataclass(frozen=True, slots=True)
class SnapshotReceived:
    """A peer's snapshot has arrived whole and is durable here; the host has not installed it."""

    sender: NodeId
    term: Term
    meta: SnapshotMeta


# ---- effects --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send(Generic[M]):
    """Send once, to one peer. Delivery is not promised; order is, between two members."""

    to: NodeId
    message: M

    def __str__(self) -> str:
        return f"-> {self.to} {type(self.message).__name__}"


@dataclass(frozen=True, slots=True)
class Persist:
    """Write this, then deliver `Persisted(write_id)`. Writes keep their order.

    `entries` replace whatever the log holds from `entries[0].index` on (a conflict truncates).
    `snapshot` set means: the log restarts behind it; all older entries are void.
    """

    write_id: int
    hard: HardState | None = None
    entries: tuple[Entry, ...] = ()
    snapshot: SnapshotMeta | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """These entries are committed: apply them in order, once."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Appended:
    """These entries now stand in this member's log, uncommitted. An entry with the index of an
    earlier one replaces it. Leases take their time stamp from here."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Install:
    """Replace the applied state by the received snapshot `meta`, then go on applying."""

    meta: SnapshotMeta


@dataclass(frozen=True, slots=True)
class SendSnapshot:
    """Send this member's newest snapshot to `to`, then deliver `SnapshotSent`."""

    to: NodeId
    term: Term


@dataclass(frozen=True, slots=True)
class Accepted:
    """The proposal stands in the log at `first_index`, ... of `term`. It is not committed yet: the
    host compares term and index when they are applied."""

    proposal_id: int
    term: Term
    first_index: LogIndex


@dataclass(frozen=True, slots=True)
class Refused:
    """The proposal or read was not taken; nothing was appended."""

    request_id: int
    leader: NodeId | None
    reason: str


@dataclass(frozen=True, slots=True)
class ReadReady:
    """A state that has applied `index` answers the read numbered `read_id` linearizably."""

    read_id: int
    index: LogIndex


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """This member's belief changed. `None` means that it knows of no leader."""

    leader: NodeId | None
    term: Term

    def __str__(self) -> str:
        return f"leader {self.leader or 'unknown'} of term {self.term}"


@dataclass(frozen=True, slots=True)
class Excluded:
    """A peer refuses this member as a voter, and says why. A person must act; the host shows it."""

    by: NodeId
    reason: str


Event = (
    Received[M]
    | Tick
    | Persisted
    | Propose
    | ReadIndex
    | TransferLeadership
    | SnapshotSaved
    | SnapshotSent
    | SnapshotReceived
)
Effect = (
    Send[M]
    | Persist
    | Apply
    | Appended
    | Install
    | SendSnapshot
    | Accepted
    | Refused
    | ReadReady
    | LeaderChanged
    | Excluded
)


class Machine(Protocol[M]):
    """What hosts and simulators drive."""

    wake_at_s: float

    def step(self, now_s: float, event: Event[M]) -> list[Effect[M]]: ...
