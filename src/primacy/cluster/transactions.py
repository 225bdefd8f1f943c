"""The transactions that make the promotion rule true: what each compares, and what it writes. Pure.

A plan may be late; a transaction may not be wrong. Whatever a decision rested on is compared here,
so that it takes effect only in the state of the store in which it was right.

what                 compares
seal                 `epoch` as it was read, and no primary record
claim                `epoch` as it was read, no primary record, D, every seal that was counted,
                     the durability policy that may have allowed a loss
claim by hand-over   `epoch`, the offer, D, and the primary record of the one who offers
branch, swap, ...    the primary record of the one who writes; a swap also D
settle               as a swap: whoever adopts a primary makes the swaps of its former agent void

A loss that an operator accepted is about one D. It stands until the first D of a later epoch is
recorded, so that a winner that dies before it opens does not use it up, and it ends there, so that
it can never excuse another loss.
"""

import msgspec

from primacy.cluster.actions import (
    AskSwitchover,
    BeginHandover,
    Claim,
    EndRequest,
    EndTask,
    OfferHandover,
    Swap,
    WithdrawHandover,
)
from primacy.cluster.view import StoreView
from primacy.coordination.api import Compare, Delete, LeaseId, Op, Put, Txn, absent, unchanged
from primacy.engines.api import Observation
from primacy.model import Epoch, Incarnation, Member, NodeId, Revision
from primacy.replication.records import (
    BRANCHES_PREFIX,
    DECISIONS_KEPT,
    DECISIONS_PREFIX,
    DIVERGED_PREFIX,
    DURABILITY_KEY,
    EPOCH_KEY,
    FAILOVER_KEY,
    HANDOVER_KEY,
    HISTORY_PREFIX,
    NODES_PREFIX,
    OUTCOMES_PREFIX,
    POLICY_KEY,
    PRIMARY_KEY,
    SEALS_PREFIX,
    SWITCHOVER_KEY,
    TASKS_PREFIX,
    BranchRecord,
    Decision,
    DivergedRecord,
    DurabilityRecord,
    Handover,
    HistoryRecord,
    NodeStatus,
    PrimaryRecord,
    RequestOutcome,
    SealNote,
    SwitchoverRequest,
    encoded,
    epoch_key,
    node_key,
)


def seal_txn(store: StoreView, note: SealNote) -> Txn:
    """Publish a seal: void if an epoch was claimed since it was begun."""
    return Txn(
        compares=(unchanged(EPOCH_KEY, store.epoch_mod), absent(PRIMARY_KEY)),
        then=(Put(node_key(SEALS_PREFIX, note.node), encoded(note)),),
    )


def seal_note(node: NodeId, epoch: Epoch, seen: Observation) -> SealNote:
    return SealNote(
        node=node,
        incarnation=seen.incarnation or Incarnation(""),
        epoch=epoch,
        received=seen.received,
        applied=seen.applied,
        is_cut=seen.is_cut,
        is_broken=seen.replication.error is not None and seen.applied < seen.received,
        is_errant=seen.is_errant,
    )


def claim_txn(
    store: StoreView, claim: Claim, node: NodeId, incarnation: Incarnation, lease: LeaseId
) -> Txn:
    """Raise the epoch and create the primary record, bound to the lease. D names a winner that
    lost nothing among its heirs, until one of them records its own."""
    if claim.handover_mod:
        right: tuple[Compare, ...] = (
            unchanged(PRIMARY_KEY, store.primary_mod),
            unchanged(HANDOVER_KEY, claim.handover_mod),
        )
    else:
        right = (absent(PRIMARY_KEY),)
    record = PrimaryRecord(node=node, incarnation=incarnation, epoch=claim.epoch)
    return Txn(
        compares=(
            unchanged(EPOCH_KEY, store.epoch_mod),
            unchanged(DURABILITY_KEY, store.durability_mod),
            unchanged(POLICY_KEY, store.policy_mod),
            *right,
            *(unchanged(node_key(SEALS_PREFIX, each), mod) for each, mod in claim.compared_seals),
        ),
        then=(
            Put(EPOCH_KEY, encoded(claim.epoch)),
            Put(PRIMARY_KEY, encoded(record), lease),
            Delete(HANDOVER_KEY),
            *_heir(store, claim, Member(node, incarnation)),
        ),
    )


def _heir(store: StoreView, claim: Claim, winner: Member) -> tuple[Op, ...]:
    """A winner that a person, or the policy, let pass by a loss does not hold all: whoever does may
    still come back before it opens."""
    if store.durability is None or store.durability.acks == 0 or claim.accepted_loss:
        return ()
    others = (each for each in store.durability.heirs if each.node != winner.node)
    named = msgspec.structs.replace(store.durability, heirs=(*others, winner))
    return (Put(DURABILITY_KEY, encoded(named)),)


def branch_txn(store: StoreView, branch: BranchRecord) -> Txn:
    return Txn(
        compares=(unchanged(PRIMARY_KEY, store.primary_mod),),
        then=(Put(epoch_key(BRANCHES_PREFIX, branch.epoch), encoded(branch)),),
    )


def swap_txn(store: StoreView, swap: Swap) -> Txn:
    """D becomes D', if D is what it was and this node's claim stands."""
    before = store.durability
    opens = before is None or before.epoch < swap.record.epoch
    return Txn(
        compares=(
            unchanged(PRIMARY_KEY, store.primary_mod),
            unchanged(EPOCH_KEY, store.epoch_mod),
            unchanged(DURABILITY_KEY, swap.base_mod),
        ),
        then=(
            Put(DURABILITY_KEY, encoded(swap.record)),
            *(_end_of_acceptance(store, swap) if opens else ()),
        ),
    )


def _end_of_acceptance(store: StoreView, swap: Swap) -> tuple[Op, ...]:
    """The record that an accepted loss was about is history: so is the acceptance."""
    request = store.failover
    if request is None:
        return (Delete(FAILOVER_KEY),)
    primary = swap.record.primary.node
    outcome = RequestOutcome(
        request_id=request.request_id,
        is_done=True,
        detail=f"{primary} is primary of epoch {swap.record.epoch}",
    )
    return (
        Delete(FAILOVER_KEY),
        Put(f"{OUTCOMES_PREFIX}{request.request_id}", encoded(outcome)),
    )


def settle_txn(store: StoreView, durability: DurabilityRecord) -> Txn:
    """D once more, unchanged, at a new revision: a swap that was sent by this node's former agent,
    and may still be on its way, compares the old one and is void."""
    return Txn(
        compares=(
            unchanged(PRIMARY_KEY, store.primary_mod),
            unchanged(EPOCH_KEY, store.epoch_mod),
            unchanged(DURABILITY_KEY, store.durability_mod),
        ),
        then=(Put(DURABILITY_KEY, encoded(durability)),),
    )


def ask_switchover_txn(store: StoreView, ask: AskSwitchover, wall_s: float) -> Txn:
    """Only while no other request stands and this node's claim does."""
    request = SwitchoverRequest(request_id=ask.request_id, target=ask.target, wall_s=wall_s)
    return Txn(
        compares=(unchanged(PRIMARY_KEY, store.primary_mod), absent(SWITCHOVER_KEY)),
        then=(Put(SWITCHOVER_KEY, encoded(request)),),
    )


def begin_handover_txn(store: StoreView, begin: BeginHandover) -> Txn:
    request = store.switchover or SwitchoverRequest(request_id="")
    begun = msgspec.structs.replace(request, is_begun=True)
    return Txn(
        compares=(
            unchanged(PRIMARY_KEY, store.primary_mod),
            unchanged(SWITCHOVER_KEY, begin.mod),
        ),
        then=(Put(SWITCHOVER_KEY, encoded(begun)),),
    )


def offer_txn(store: StoreView, offer: OfferHandover, last_sequence: int) -> Txn:
    handover = Handover(
        request_id=offer.request_id,
        epoch=offer.epoch,
        target=offer.target,
        last_sequence=last_sequence,
    )
    return Txn(
        compares=(
            unchanged(PRIMARY_KEY, store.primary_mod),
            unchanged(SWITCHOVER_KEY, store.switchover_mod),
            absent(HANDOVER_KEY),
        ),
        then=(Put(HANDOVER_KEY, encoded(handover)),),
    )


def withdraw_txn(store: StoreView, withdrawal: WithdrawHandover) -> Txn:
    """Only the one who still holds the primary record can take an offer back."""
    outcome = RequestOutcome(
        request_id=withdrawal.request_id, is_done=False, detail=withdrawal.reason
    )
    return Txn(
        compares=(
            unchanged(PRIMARY_KEY, store.primary_mod),
            unchanged(HANDOVER_KEY, store.handover_mod),
        ),
        then=(
            Delete(HANDOVER_KEY),
            Delete(SWITCHOVER_KEY),
            Put(f"{OUTCOMES_PREFIX}{withdrawal.request_id}", encoded(outcome)),
        ),
    )


def end_request_txn(end: EndRequest) -> Txn:
    outcome = RequestOutcome(request_id=end.request_id, is_done=end.is_done, detail=end.reason)
    return Txn(
        compares=(unchanged(end.key, end.mod),),
        then=(Delete(end.key), Put(f"{OUTCOMES_PREFIX}{end.request_id}", encoded(outcome))),
    )


def end_task_txn(end: EndTask) -> Txn:
    """As a request's end; the key is of this node alone."""
    return end_request_txn(
        EndRequest(
            key=node_key(TASKS_PREFIX, end.node),
            mod=end.mod,
            request_id=end.request_id,
            is_done=end.is_done,
            reason=end.reason,
        )
    )


def opened_txn(store: StoreView, history: HistoryRecord) -> Txn:
    """The doors are open: say how it came about, and end the switchover that asked for it."""
    request = store.switchover
    ended: tuple[Op, ...] = ()
    if request is not None and history.kind == "switchover":
        outcome = RequestOutcome(
            request_id=request.request_id,
            is_done=True,
            detail=f"{history.node} is primary of epoch {history.epoch}",
        )
        ended = (
            Delete(SWITCHOVER_KEY),
            Put(f"{OUTCOMES_PREFIX}{request.request_id}", encoded(outcome)),
        )
    return Txn(
        compares=(unchanged(PRIMARY_KEY, store.primary_mod),),
        then=(Put(epoch_key(HISTORY_PREFIX, history.epoch), encoded(history)), *ended),
    )


def status_txn(status: NodeStatus) -> Txn:
    return Txn(then=(Put(node_key(NODES_PREFIX, status.node), encoded(status)),))


def decision_txn(decision: Decision) -> Txn:
    slot = decision.number % DECISIONS_KEPT
    return Txn(then=(Put(f"{DECISIONS_PREFIX}{decision.node}/{slot:04d}", encoded(decision)),))


def diverged_txn(record: DivergedRecord) -> Txn:
    """Found again after a restart, it is known already: also that somebody has seen to it."""
    key = f"{DIVERGED_PREFIX}{record.ident}"
    return Txn(compares=(absent(key),), then=(Put(key, encoded(record)),))


def diverged_ended_txn(record: DivergedRecord, mod: Revision) -> Txn:
    key = f"{DIVERGED_PREFIX}{record.ident}"
    return Txn(compares=(unchanged(key, mod),), then=(Put(key, encoded(record)),))


def loss_txn(history: HistoryRecord, mod: Revision) -> Txn:
    """Write down what an epoch turned out not to have."""
    key = epoch_key(HISTORY_PREFIX, history.epoch)
    return Txn(compares=(unchanged(key, mod),), then=(Put(key, encoded(history)),))
