"""There is no primary record: who may write one?

D unknown, all nodes blank          one initialises and claims the first epoch
D unknown, data somewhere           every data node seals; the most advanced claims
this node is D.primary, not cut     it waits for the others to go first, then returns: 5(a)
any other node with data            it seals for epoch + 1, publishes, and 5(b) or 6 decides
"""

import math
from collections.abc import Mapping

from primacy.cluster.actions import Claim, Initialise, Plan, Salvage, Seal, act, wait
from primacy.cluster.policy import Policy, back_off_s
from primacy.cluster.view import DISK_FULL, View, is_silent
from primacy.engines.api import ServerState
from primacy.model import ORIGIN, Epoch, NodeId, Revision
from primacy.replication.durability import (
    Verdict,
    is_heir,
    judge_lossy,
    judge_sealed,
    judge_unknown_record,
    may_return,
    seals_needed,
)
from primacy.replication.records import DurabilityRecord, NodeStatus, SealNote

ERRANT_WAIT_TTLS = 2.0
"""How long a node on which somebody wrote leaves the lead to another that holds as much."""


def plan_vacant(view: View, policy: Policy) -> Plan:
    if view.store.pause is not None:
        return wait(f"paused: no elections ({view.store.pause.reason or 'no reason given'})")
    record = view.store.durability
    if record is None:
        return _bootstrap(view, policy)
    if view.engine.state is ServerState.ABSENT:
        return wait("no data here yet, and no primary to clone from")
    if record.primary.node == view.node:
        returning = may_return(record, view.node, view.incarnation, is_cut=view.engine.is_cut)
        if returning.is_allowed and not view.is_salvage_hopeless:
            return _return(view, policy, record, returning)
    return _seal_or_claim(view, policy, Epoch(view.store.epoch + 1))


# ---- bootstrap


def _bootstrap(view: View, policy: Policy) -> Plan:
    """No durability record: a new cluster, or a store that lost its memory."""
    statuses = {node: view.store.nodes.get(node) for node in policy.data_nodes}
    silent = sorted(node for node, status in statuses.items() if status is None)
    if silent:
        return wait(f"bootstrap: every data node must have spoken; silent: {', '.join(silent)}")
    known = {node: status for node, status in statuses.items() if status is not None}
    if all(_is_blank(status) for status in known.values()):
        return _first_claim(view, policy)
    return _seal_or_claim(view, policy, _epoch_above_all(view, known))


def _first_claim(view: View, policy: Policy) -> Plan:
    able = [node for node in policy.data_nodes if node not in policy.never_promote]
    first = max(sorted(able, reverse=True), key=policy.weight)
    if first != view.node:
        return wait(f"bootstrap: {first} goes first")
    if view.engine.state is ServerState.ABSENT:
        return act(Initialise(reason="bootstrap: all data nodes are empty and this one goes first"))
    epoch = _epoch_above_all(view, view.store.nodes)
    return act(
        Claim(epoch=epoch, kind="bootstrap", reason=f"bootstrap: the first primary is {view.node}")
    )


def _is_blank(status: NodeStatus) -> bool:
    return status.state == "absent" or (
        status.received == ORIGIN and status.sealed_epoch == 0 and status.state != "hung"
    )


def _epoch_above_all(view: View, statuses: Mapping[NodeId, NodeStatus]) -> Epoch:
    """Above every epoch row; at or above every seal, so that seals for it can still be given."""
    rows = max((status.received.epoch for status in statuses.values()), default=0)
    sealed = max((status.sealed_epoch for status in statuses.values()), default=0)
    notes = max((note.epoch for note in view.store.seals.values()), default=0)
    return Epoch(max(rows + 1, sealed, notes, view.store.epoch + 1))


# ---- rule 5(a)


def _return(view: View, policy: Policy, record: DurabilityRecord, returning: Verdict) -> Plan:
    """The recorded primary comes back, unless a replica is quicker: it holds everything."""
    able = [
        member.node
        for member in record.members
        if not is_silent(view, policy, member.node, unheard_s=math.inf)
    ]
    others_can = record.acks > 0 and len(able) >= seals_needed(len(record.members), record.acks)
    left_s = policy.return_after_s - view.store.vacant_for_s
    if others_can and left_s > 0:
        return wait(
            f"{', '.join(able)} may go first for {policy.return_after_s:.1f} s; then {view.node}"
            " returns as the recorded primary",
            look_again_s=left_s,
        )
    epoch = Epoch(view.store.epoch + 1)
    return _claim(view, policy, Claim(epoch=epoch, kind="restart", reason=returning.reason))


# ---- rules 5(b), 6 and 7


def _seal_or_claim(view: View, policy: Policy, epoch: Epoch) -> Plan:
    own = view.store.seals.get(view.node)
    is_sealed = own is not None and own.epoch == epoch and own.incarnation == view.incarnation
    if own is None or not is_sealed:
        if view.engine.state is ServerState.ABSENT:
            return wait("no data here yet, and no primary to clone from")
        return act(
            Seal(epoch=epoch, reason=f"no primary record: seal for epoch {epoch} and say how far")
        )
    if view.node in policy.never_promote:
        return wait(f"sealed for epoch {epoch}; the configuration says: never promote")
    news = _news(view, own)
    if news:
        return act(Seal(epoch=epoch, reason=f"{news} is not as it was said"))
    if own.is_broken:
        return _broken(view, epoch)
    accepted = view.store.failover.accept_loss if view.store.failover else ()
    verdict = _judge(view, policy, own, accepted)
    if not verdict.is_allowed:
        return wait(f"sealed for epoch {epoch}: {verdict.reason}", look_again_s=policy.tie_wait_s)
    left_s = _leaves_to_another_s(view, policy, own, verdict)
    if left_s > 0:
        return wait(
            f"sealed for epoch {epoch}: {verdict.reason}; equally advanced, so it goes first",
            look_again_s=left_s,
        )
    lossy_left_s = policy.lossy_wait_s - view.store.vacant_for_s
    if verdict.is_lossy and not accepted and lossy_left_s > 0:
        return wait(
            f"acks = 0: the old primary has {policy.lossy_wait_s:.1f} s to come back before a"
            " loss is risked",
            look_again_s=lossy_left_s,
        )
    compared = tuple(
        (node, view.store.seal_mods.get(node, Revision(0))) for node in verdict.counted
    )
    return _claim(
        view,
        policy,
        Claim(
            epoch=epoch,
            kind="failover",
            compared_seals=compared,
            accepted_loss=tuple(accepted),
            may_lose="" if accepted else verdict.may_lose,
            reason=verdict.reason,
        ),
    )


def _broken(view: View, epoch: Epoch) -> Plan:
    """It has said how far it goes, and cannot lead while it cannot apply that."""
    if view.engine.needs_salvage:
        return act(Salvage(reason="what its relay log holds could not be applied: once more"))
    return wait(
        f"sealed for epoch {epoch}: its applier stopped at {view.engine.applied} of"
        f" {view.engine.received}: {view.engine.replication.error}. It cannot lead so"
    )


def _news(view: View, own: SealNote) -> str:
    """What the note says of this node that has changed since."""
    if own.is_broken != view.is_applier_broken:
        return "whether its applier can go on"
    if own.is_errant != view.engine.is_errant:
        return "whether somebody wrote on it"
    return ""


def _leaves_to_another_s(view: View, policy: Policy, own: SealNote, verdict: Verdict) -> float:
    """How long an equally advanced node may still go first; 0 where none does."""
    is_first_gone = verdict.goes_first is not None and is_silent(view, policy, verdict.goes_first)
    if not verdict.is_tie or is_first_gone:
        return 0.0
    patience_s = ERRANT_WAIT_TTLS * policy.lease_ttl_s if own.is_errant else policy.tie_wait_s
    return max(0.0, patience_s - view.store.vacant_for_s)


def _judge(view: View, policy: Policy, own: SealNote, accepted: tuple[NodeId, ...]) -> Verdict:
    verdict = _judge_by_seals(view, policy, own, accepted)
    record = view.store.durability
    if not verdict.is_allowed and record is not None and is_heir(record, own):
        return Verdict(
            is_allowed=True,
            counted=(own.node,),
            reason=f"{own.node} won an epoch since the record, and nothing was acknowledged since",
        )
    return verdict


def _judge_by_seals(
    view: View, policy: Policy, own: SealNote, accepted: tuple[NodeId, ...]
) -> Verdict:
    record = view.store.durability
    candidates = [
        note
        for node, note in view.store.seals.items()
        if node not in policy.never_promote and not note.is_broken
    ]
    seals = list(view.store.seals.values())
    if record is None:
        return judge_unknown_record(
            own, seals, _nodes_to_be_sealed(view, policy), priority=policy.weights
        )
    if record.acks > 0:
        return judge_sealed(record, own, seals, priority=policy.weights, accepted_loss=accepted)
    is_lossy = record.is_lossy or policy.degrade_failover == "lossy"
    if is_lossy and not record.is_lossy and record.primary.node not in accepted:
        why = f"epoch {record.epoch} was degraded, and degrade_failover = lossy"
        return judge_lossy(own, candidates, priority=policy.weights, why=why)
    if is_lossy or record.primary.node in accepted:
        return judge_lossy(own, candidates, priority=policy.weights)
    return Verdict(
        is_allowed=False,
        reason=f"epoch {record.epoch} was degraded to no acknowledgements: only"
        f" {record.primary.node} surely holds every write. Bring it back, or accept the loss with"
        f" `primacy failover --accept-loss {record.primary.node}`",
    )


def _nodes_to_be_sealed(view: View, policy: Policy) -> tuple[NodeId, ...]:
    """Without a durability record: all data nodes, unless only a bootstrap was interrupted.

    Where the counter of epochs began in this very store, every epoch it counted was claimed without
    a record, so no door was ever open: a node that has no data has none that anybody could miss.
    """
    if view.store.epoch == 0 or view.store.epoch_version != view.store.epoch:
        return policy.data_nodes
    return tuple(
        node
        for node in policy.data_nodes
        if (status := view.store.nodes.get(node)) is not None and not _is_blank(status)
    )


def _claim(view: View, policy: Policy, claim: Claim) -> Plan:
    """The last gates before a claim: space to lead, and the back-off against flapping."""
    if view.engine.is_disk_full:
        return wait(f"{DISK_FULL}: it claims nothing")
    pause_s = back_off_s(
        view.store.recent_failover_count, free_count=policy.failovers_before_back_off
    )
    wait_s = pause_s - view.store.vacant_for_s
    if wait_s > 0:
        return wait(
            f"{view.store.recent_failover_count} automatic failovers in five minutes: the next"
            f" waits {wait_s:.1f} s longer",
            look_again_s=wait_s,
        )
    return act(claim)
