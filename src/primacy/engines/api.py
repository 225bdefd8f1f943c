"""What the brain asks of a database: one contract for all engines.

The agent calls these methods; the engine translates them into its server's own words. Methods
that can take long (`clone`, `start`, `drain`) are cancellable and leave the engine in a state
that `observe` describes. Every method is idempotent: after a crash of the agent, or when its
caller was cancelled, it is simply called again, and does what was left undone and nothing twice.
A method that needs a server, and a method that names a node, raise an error of the tree where
there is none, and change nothing.

    ABSENT --initialise/clone--> STOPPED --start--> RUNNING --kill/crash--> STOPPED
                                                    HUNG: runs but does not answer in time

Errors: `Unavailable` (the server does not answer, the peer is away: try again), `Conflict` (the
server is not in the state that the call needs: observe again), `Rejected` (a person must act).

`tests/conformance/engine` holds every engine to this page.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import msgspec

from primacy.model import ORIGIN, Epoch, Incarnation, NodeId, Position


class ServerState(Enum):
    """What stands between the brain and the data."""

    ABSENT = "no data directory yet"
    FOREIGN = "a data directory that primacy did not make: it is never touched"
    STOPPED = "data, and no server process"
    RUNNING = "the server answers"
    HUNG = "a server process that does not answer within the deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """This node as a receiver."""

    upstream: NodeId | None = None
    """To whom it is attached, or tries to be. None where receiving was stopped."""
    is_receiving: bool = False
    """The IO thread is connected and reads (MariaDB: `Yes`)."""
    is_applying: bool = False
    """The SQL thread runs."""
    acknowledges: bool = False
    """What is received is acknowledged to the upstream, or will be as soon as it is attached: in
    effect now, or switched on. False means that it surely is not."""
    lag_bytes: int | None = None
    """Of the upstream's log: what has not been received. None: the engine does not say."""
    error: str | None = None
    """The applier's or receiver's own words, where it stopped on an error."""
    is_diverged: bool = False
    """The error means that this log is no prefix of the upstream's (1236, 1950, 1062, 1032)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """This node as a source."""

    acks: int = 0
    """How many acknowledgements a commit waits for, in effect now."""
    repeats_acks: bool = False
    """A replica says again and again how far it is, so that no acknowledgement can be lost: one
    that does not come is still owed (MariaDB's comes once or never)."""
    receivers: frozenset[NodeId] = frozenset()
    """Nodes that are attached now, one whose connection is just being ended included."""
    connections: Mapping[NodeId, int] = field(default_factory=dict)
    """How many connections each has; one where it is not said."""
    strangers: frozenset[str] = frozenset()
    """Accounts that are attached and belong to no node of the cluster."""
    acknowledging_count: int = 0
    """How many connections acknowledge, of nodes and of strangers."""
    excluded: frozenset[NodeId] = frozenset()
    """Nodes that `exclude` keeps from attaching."""
    waiting_commits: int = 0
    """Commits that wait for an acknowledgement at this moment: blocked, not hung."""
    waits_at: int = 0
    """The sequence of the one that waits longest; 0 where the server does not say. MariaDB does
    not, and need not: nothing reaches its log behind a commit that waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The database as this moment shows it. Positions are ORIGIN where they are unknown."""

    state: ServerState
    incarnation: Incarnation | None = None
    is_read_only: bool = True
    received: Position = ORIGIN
    """Durable here, applied or not. On a source: the end of its own log."""
    applied: Position = ORIGIN
    position_text: str = ""
    """The engine's own notation, for people: `0-1-42`."""
    sealed_epoch: Epoch = Epoch(0)
    """Below it every sender is refused: the durable note."""
    following_epoch: Epoch = Epoch(0)
    """The epoch of the primary that this node was last told to follow; 0: none since its start."""
    replication: Replication = field(default_factory=Replication)
    sending: Sending = field(default_factory=Sending)
    is_cut: bool = False
    """Its log was cut or rewound since it last was primary: the right of rule 5(a) is gone."""
    is_torn: bool = False
    """A rewind has begun and not ended: only a clone makes something of these data again."""
    has_old_data: bool = False
    """A data directory kept aside by a clone: `forget_old_data` removes it."""
    is_disk_full: bool = False
    """There is no space for another write, or nearly none: this node leads nothing."""
    is_errant: bool = False
    """A replica that has transactions of its own: somebody wrote on it. They do not count in
    `received` and `applied`."""
    needs_salvage: bool = False
    """Received data that only a relay log holds: `salvage` before anything else."""
    heartbeat: int = 0
    """The number of the newest heartbeat row applied here."""
    heartbeat_age_s: float = 0.0
    """Since `heartbeat` last grew here, on this host's monotonic clock."""
    starts: int = 0
    """How often this node has started its server: another number after each start."""
    detail: str = ""
    """Why the state is what it is, in words."""


class Progress(msgspec.Struct, frozen=True):
    """Of a clone: what is done, in the unit that the label names."""

    label: str
    done_bytes: int
    total_bytes: int
    """0 where it is not known."""


ProgressSink = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverged:
    """What a node has that the new history has not."""

    ident: str = ""
    """The same for the same transactions, however often they are found: a name for people."""
    epoch: Epoch = Epoch(0)
    """The one at whose beginning the histories part, or in which a replica wrote by itself."""
    count: int = 0
    """Transactions."""
    own_count: int = 0
    """Of them, such as changed only primacy's own rows: heartbeats, markers. Nobody misses them."""
    first: str = ""
    last: str = ""
    """In the engine's own notation."""
    tables: tuple[str, ...] = ()
    """Of applications, quoted."""
    path: str = ""
    """Where they were saved as SQL; empty where there are none."""
    is_certain: bool = True
    """False where the logs could not be read to the end; `path` then says how far."""
    parts_at: int = 0
    """The first sequence that the two histories do not share."""
    obstacle: str = ""
    """Why they cannot be taken back row by row; empty where they can."""
    is_errant: bool = False
    """Somebody wrote them on a replica, past `read_only`: committed, so that no start cuts them."""

    @property
    def is_reversible(self) -> bool:
        return self.count > 0 and self.is_certain and self.parts_at > 1 and not self.obstacle


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Where an epoch begins: its primary and the sequence of its epoch row."""

    epoch: Epoch
    node: NodeId
    first_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine keeps, as data. Everything else is refused at start."""

    name: str
    acks_max: int | None
    """For how many acknowledgements a commit can wait; None: for those of all replicas."""
    ack_on: frozenset[str]
    alternative: str
    """The engine to name to somebody who wants more; empty: there is none."""

    def acks_problem(self, acks: int | str, *, replica_count: int) -> str:
        """Why `durability.acks` cannot be that; empty: it can."""
        if self.acks_max is not None and (isinstance(acks, str) or acks > self.acks_max):
            kept = " or ".join(str(each) for each in range(self.acks_max + 1))
            more = f"; for any number: {self.alternative}" if self.alternative else ""
            return f"{self.name} keeps {kept}{more}"
        if replica_count == 0 and acks != 0:
            return "one data node has no replica that could acknowledge"
        if isinstance(acks, int) and acks > replica_count:
            replicas = "replica" if replica_count == 1 else "replicas"
            return f"{replica_count + 1} data nodes have {replica_count} {replicas}"
        return ""


class Guardian(Protocol):
    """The guard of the server that runs now, and its deadline page: `engines.guarding.Guarded`.

    Deadlines are seconds on CLOCK_BOOTTIME. A refused call raises `Conflict` with the reason.
    """

    exited: asyncio.Event
    """Set at once when the guard or the database has exited."""

    async def arm(self, epoch: Epoch, deadline_s: float) -> object: ...

    async def extend(self, epoch: Epoch, deadline_s: float) -> object: ...

    async def open(self, epoch: Epoch) -> object: ...

    async def close(self, epoch: Epoch, *, keep_deadline: bool = False) -> object:
        """Closed is final for the epoch. `keep_deadline`: the guard still kills at the deadline,
        until a second `close` without it."""
        ...


class Engine(Protocol):
    """One database server on this host."""

    capabilities: Capabilities

    @property
    def guardian(self) -> Guardian | None:
        """Of the server that runs now; None while none does."""
        ...

    async def attach(self) -> bool:
        """The agent has (re)started: find a server that runs under a guard of this node, say hello
        to it, and return whether there is one. Called once, before anything else."""
        ...

    async def observe(self) -> Observation:
        """Within its deadline, always; a server that does not answer is reported as HUNG."""
        ...

    # -- life of the server

    async def initialise(self) -> None:
        """ABSENT -> STOPPED: an empty database with a new incarnation, its accounts and tables.
        `Rejected` where the directory is FOREIGN; where there are data, nothing is done."""
        ...

    async def clone(self, donor: NodeId, progress: ProgressSink) -> None:
        """Any -> STOPPED: a copy of the donor's data with a new incarnation. The old data
        directory is kept aside until `forget_old_data`; the note "below refused" stays. Cancelled,
        or `Unavailable`: the old one stands. Its server runs on meanwhile, until the copy is whole.
        `Rejected` for a donor that is no other data node, and over FOREIGN data."""
        ...

    async def start(self, *, as_primary: bool) -> None:
        """STOPPED -> RUNNING: read-only, attached to nobody, under a guard. `as_primary` keeps
        commits that nobody acknowledged; otherwise they are cut (after `save_diverged`). Where a
        server runs, only what an earlier call left undone: it answers when this returns."""
        ...

    async def stop(self) -> None:
        """A clean stop of a replica. On a source whose commits wait it kills instead."""
        ...

    async def kill(self) -> None:
        """SIGKILL, and wait until every process is gone."""
        ...

    async def forget_old_data(self) -> None:
        """The node is a healthy replica: what `clone` or a rejoin kept aside may go."""
        ...

    # -- as a replica

    async def salvage(self) -> None:
        """Apply what only the relay log holds, before any replication thread starts."""
        ...

    async def seal(self, epoch: Epoch) -> Observation:
        """In this order: durably note "below `epoch` refused"; stop receiving; return how far this
        log goes: all that was received, applied or not, whichever agent has heard of it. Works on
        a STOPPED or HUNG server too (a hung one is killed and its relay log read), but never before
        the last position that was published is there again, unless a cut has made it void:
        `Unavailable`, with the note in place. Called again for the same epoch: the same. `Conflict`
        where `epoch` is below the note, or not above the one that this node follows or leads: a
        seal counts for exactly its epoch."""
        ...

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        """Note "below `epoch` refused", apply the own received tail, attach to `primary`.
        `Conflict` where `epoch` is below the note, or, seen at once or later, where the own log is
        no prefix of the primary's (`is_diverged`). A primary that is away, or keeps this node out:
        `Unavailable`, or attached once it can be. Attached already: only `acknowledge` changes, and
        nothing is lost or received twice."""
        ...

    async def drain(self) -> None:
        """Everything received is applied when this returns. Receiving has stopped before."""
        ...

    async def save_diverged(self, branches: Sequence[Branch]) -> Diverged:
        """On a STOPPED node: read its logs as files, save what is not part of the history
        whose epochs begin at `branches`, and count it. Changes nothing, so that it finds the same
        when called again. `Conflict` while a server runs."""
        ...

    async def rewind(self, found: Diverged, primary: NodeId, epoch: Epoch) -> None:
        """On a RUNNING node that is attached to nobody: take back what `save_diverged` found, row
        by row, and compare the touched tables with those of `primary` at one position. `Conflict`
        with the reason where that cannot be done; where it had begun, `observe` shows `is_torn`."""
        ...

    # -- as a primary

    async def begin_epoch(self, epoch: Epoch, primary: NodeId) -> int:
        """Detach from any upstream and durably write the epoch row, doors closed; nobody's
        acknowledgement is waited for. Exclusions of an earlier reign end: they would keep those
        out who must hold the row. Returns its sequence. Called again, by whichever agent: the same
        row, and no more. `is_cut` ends. `Conflict` where `epoch` is below the note, or `primary` is
        another node."""
        ...

    async def set_acks(self, acks: int, *, may_release: bool = False) -> None:
        """From now on a commit waits for that many acknowledgements. Lowering it while commits
        wait releases them: `Conflict` unless `may_release` says that the record allows it.
        `Rejected` for more than the engine, or a cluster of this size, keeps."""
        ...

    async def open_doors(self) -> None:
        """Accept writes. `Unavailable` where the engine sees that the first one would wait for an
        acknowledgement that nobody gives yet."""
        ...

    async def close_doors(self) -> int:
        """Refuse writes; no commit is in flight when this returns. Returns the sequence of the
        last record. `Unavailable` where that took too long: the doors then are as before. A closed
        door may be opened again in the same epoch."""
        ...

    async def write_marker(self) -> int:
        """Append a marker row and return its sequence without waiting for acknowledgements. Where
        a waiting commit blocks the log: the sequence of the log's end, which is as good, since
        everything that anybody could have acknowledged so far is at or below it."""
        ...

    async def exclude(self, node: NodeId) -> None:
        """From now on `node` cannot attach, and it is not attached: it can acknowledge nothing.
        No matter of the log: it does not grow."""
        ...

    async def admit(self, node: NodeId) -> None:
        """Undo `exclude`: `node` attaches again by itself, as `follow` told it last."""
        ...

    async def cut_strangers(self, accounts: Collection[str]) -> frozenset[str]:
        """Lock these accounts on this server and end their sessions: none of them can acknowledge
        when it returns. One whose going did not change how many acknowledge only read the log, and
        is let in again, unless that is true of all. Returns who stays locked."""
        ...

    async def demote(self) -> None:
        """Doors closed before: stop waiting for acknowledgements, ready to `follow`. `Conflict`
        where the log moved after `close_doors`, by a marker too, or commits still wait: kill
        instead, or close the doors again."""
        ...

    async def beat(self) -> None:
        """Write the next heartbeat row (replicated). Blocks while commits block. `Conflict` once
        `close_doors` has begun: a closed primary writes nothing."""
        ...
