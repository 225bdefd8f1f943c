"""What a brain may ask its hands to do: a closed set. Each action says why.

One action is performed at a time, then the node looks and plans again, so every action is a step
from any state that the last one may have left behind, a crash in its middle included. The hands
(`perform`, or the simulator) add no decision of their own.
"""

from dataclasses import dataclass

from primacy.engines.api import Diverged
from primacy.model import Epoch, NodeId, Revision
from primacy.replication.records import BranchRecord, DurabilityRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Base: why it is taken, in words, with numbers."""

    reason: str


# ---- the server's life


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialise(Action):
    """Make an empty database here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Action):
    as_primary: bool
    """Keep commits that nobody acknowledged; otherwise they are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill(Action):
    """SIGKILL the database and see it gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone(Action):
    donor: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage(Action):
    """Apply what only the relay log holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveDiverged(Action):
    """Read the stopped server's logs, save what the new history has not, publish the count."""

    epoch: Epoch
    """The newest: what is found is known by it."""
    branches: tuple[BranchRecord, ...]
    """Where each epoch begins, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind(Action):
    """Take back, row by row, what was found and saved; then the node can follow again."""

    found: Diverged
    primary: NodeId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetOldData(Action):
    """A healthy replica again: what was kept aside may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopDatabase(Action):
    """A clean stop of a replica's server; it is started again like any stopped one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartAgent(Action):
    """End this process and begin again with whatever is installed now; the database runs on."""


# ---- a replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(Action):
    """Rule 4: note, stop receiving, publish."""

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow(Action):
    primary: NodeId
    epoch: Epoch
    acknowledge: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Demote(Action):
    """Doors are closed and another record stands: become able to follow; close the page."""

    epoch: Epoch
    """The one that ends here."""


# ---- winning the record


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldLease(Action):
    """Take a lease for a claim that is about to come: a grant costs one round of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Action):
    """One transaction: raise the epoch and create the primary record, if nothing moved."""

    epoch: Epoch
    kind: str
    """bootstrap, failover, restart (rule 5a) or switchover."""
    compared_seals: tuple[tuple[NodeId, Revision], ...] = ()
    handover_mod: Revision = Revision(0)
    accepted_loss: tuple[NodeId, ...] = ()
    may_lose: str = ""
    """Why acknowledged writes may be missing in the new epoch; empty: none can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt(Action):
    """The agent restarted under a running primary: go on with its lease."""

    lease: int
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp(Action):
    """Close the page, see every database process gone, release the lease; in this order."""

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLease(Action):
    """A lease held for a claim that did not come: nothing is bound to it."""


# ---- a primary


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm(Action):
    """Hand the lease's deadline to the guard of a server that was just started."""

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain(Action):
    """Apply all that was received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginEpoch(Action):
    """Write the epoch row, doors closed; from then on commits wait for `acks`; record where the
    epoch's branch begins."""

    epoch: Epoch
    acks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAcks(Action):
    acks: int
    may_release: bool = False
    """The record already allows fewer: commits that wait may be let go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Action):
    """Begin a transition: write the marker row that must be acknowledged under `record`."""

    record: DurabilityRecord
    base_mod: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap(Action):
    """Record D' in the place of the record written at `base_mod`, while the claim stands."""

    record: DurabilityRecord
    base_mod: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon(Action):
    """Forget a transition whose swap was never sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open(Action):
    """Own D is recorded: open the doors, then the page."""

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclude(Action):
    """Cut a node off, so that it can acknowledge nothing any more."""

    node: NodeId
    is_alarm: bool = False
    """It acknowledged, and no record names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutStrangers(Action):
    """Lock out receivers that are no node of this cluster: one of them acknowledges. On a replica:
    who was locked out by the primary for that, before this server may lead."""

    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit(Action):
    node: NodeId


# ---- a switchover


@dataclass(frozen=True, slots=True, kw_only=True)
class AskSwitchover(Action):
    """Ask for a switchover as an operator would: the policy says where the primary belongs."""

    request_id: str
    target: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginHandover(Action):
    """Tell the routers that the doors close next: they hold their clients back."""

    mod: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferHandover(Action):
    """Close the doors, then offer the lead at the log's last sequence."""

    request_id: str
    target: NodeId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawHandover(Action):
    """Take the offer back; only then open the doors again."""

    request_id: str
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRequest(Action):
    """Answer an operator's request and remove it."""

    key: str
    mod: Revision
    request_id: str
    is_done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTask(Action):
    """Answer what an operator asked of `node` and remove it."""

    node: NodeId
    mod: Revision
    request_id: str
    is_done: bool


AnyAction = (
    Initialise
    | Start
    | Kill
    | Clone
    | Salvage
    | SaveDiverged
    | Rewind
    | ForgetOldData
    | StopDatabase
    | RestartAgent
    | Seal
    | Follow
    | Demote
    | HoldLease
    | Claim
    | Adopt
    | GiveUp
    | DropLease
    | Arm
    | Drain
    | BeginEpoch
    | SetAcks
    | Mark
    | Swap
    | Abandon
    | Open
    | Exclude
    | CutStrangers
    | Admit
    | AskSwitchover
    | BeginHandover
    | OfferHandover
    | WithdrawHandover
    | EndRequest
    | EndTask
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next step, or what this node waits for."""

    action: AnyAction | None
    reason: str
    look_again_s: float | None = None
    """Plan again after this long even if nothing changes; None where only a change matters."""
    donor: NodeId | None = None
    """From whom this node copies its data, or wants to."""


def act(action: AnyAction) -> Plan:
    donor = action.donor if isinstance(action, Clone) else None
    return Plan(action=action, reason=action.reason, donor=donor)


def wait(reason: str, look_again_s: float | None = None, *, donor: NodeId | None = None) -> Plan:
    return Plan(action=None, reason=reason, look_again_s=look_again_s, donor=donor)
