"""What a server shows of itself, turned into what the brain is told. Pure.

Promises  `received` is durable here. What does not heal by itself is an error; an upstream that is
          away, or turns this node away for now, is none.
"""

from collections import Counter
from dataclasses import dataclass

from primacy.engines.api import Observation, Replication, Sending, ServerState
from primacy.engines.notes import Notes
from primacy.engines.sqlite.control import Doors, Receiving, RoleNow, Shown, Upstream, Writes
from primacy.model import ORIGIN, Incarnation, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the engine knows and the server does not say."""

    notes: Notes
    incarnation: Incarnation | None
    heartbeat_age_s: float
    has_old_data: bool


def stuck(shown: Shown, *, health_s: float) -> str:
    """Why a server that answers is of no more use than one that does not; empty where it is."""
    if shown.writes in (Writes.IN_DOUBT, Writes.BROKEN):
        return f"its writes have ended: {shown.writes_reason or shown.writes.value}"
    if shown.log_failure:
        return shown.log_failure
    if shown.disk_stuck_s > health_s:
        return f"the disk of its log has not answered for {shown.disk_stuck_s:.1f} s"
    return ""


def unfit(shown: Shown, notes: Notes) -> str:
    """What is to be noted of these data from now on: until whoever follows or leads has applied all
    that its log holds. A server that rests has only not tried."""
    if shown.must_clone:
        return shown.trouble
    is_well = shown.role is not RoleNow.RESTING and shown.applied.index >= shown.durable.index
    return "" if is_well else notes.unfit


def applied_as_far_as_known(notes: Notes, received: Position, applied: Position) -> Position:
    """Of data that are of no use nobody knows what they hold, whatever their position row says."""
    return ORIGIN if notes.unfit and applied >= received else applied


def observation(shown: Shown, known: Known) -> Observation:
    """Of a server that answers and is not stuck."""
    return Observation(
        state=ServerState.RUNNING,
        incarnation=known.incarnation,
        is_read_only=shown.doors is Doors.CLOSED,
        received=shown.durable.position,
        applied=applied_as_far_as_known(
            known.notes, shown.durable.position, shown.applied.position
        ),
        position_text=shown.position_text,
        sealed_epoch=known.notes.sealed_epoch,
        following_epoch=known.notes.following_epoch,
        replication=_replication(shown, known.notes),
        sending=_sending(shown),
        is_cut=known.notes.is_cut,
        is_torn=known.notes.is_torn,
        has_old_data=known.has_old_data,
        heartbeat=shown.heartbeat,
        heartbeat_age_s=known.heartbeat_age_s,
        starts=known.notes.starts,
        detail=_detail(shown),
    )


def _replication(shown: Shown, notes: Notes) -> Replication:
    upstream = shown.upstream
    error = _error(shown, notes)
    if upstream is None:
        return Replication(error=error)
    return Replication(
        upstream=upstream.node,
        is_receiving=upstream.state is Receiving.STREAMING,
        is_applying=shown.role is RoleNow.FOLLOWING and not shown.trouble,
        acknowledges=upstream.acknowledges and _may_be_attached(upstream),
        lag_bytes=upstream.lag_bytes if upstream.state is Receiving.STREAMING else None,
        error=error,
        is_diverged=upstream.state is Receiving.DIVERGED,
    )


def _may_be_attached(upstream: Upstream) -> bool:
    """Now, or by itself at any moment: a receiver that rests does not come back unasked."""
    match upstream.state:
        case Receiving.CONNECTING | Receiving.STREAMING | Receiving.REJECTED:
            return True
        case Receiving.STOPPED | Receiving.DIVERGED | Receiving.PURGED:
            return False


def _error(shown: Shown, notes: Notes) -> str | None:
    """Only what a copy, a cut or a rewind heals: the brain acts on it."""
    if shown.must_clone:
        return shown.trouble
    if notes.unfit:
        return notes.unfit
    upstream = shown.upstream
    if upstream is not None and upstream.state in (Receiving.DIVERGED, Receiving.PURGED):
        return f"{upstream.state.value}: {upstream.reason}"
    return None


def _detail(shown: Shown) -> str:
    upstream = shown.upstream
    if shown.trouble:
        return shown.trouble
    if shown.log_damage:
        return f"its log is damaged: {shown.log_damage}"
    if upstream is not None and upstream.state is Receiving.REJECTED:
        return f"{upstream.node} turns this node away: {upstream.reason}"
    return ""


def _sending(shown: Shown) -> Sending:
    connections = Counter(each.node for each in shown.attached)
    return Sending(
        acks=shown.acks,
        repeats_acks=True,
        receivers=frozenset(connections),
        connections=dict(connections),
        acknowledging_count=sum(each.acknowledges for each in shown.attached),
        excluded=frozenset(shown.excluded),
        waiting_commits=shown.waiting_commits,
        waits_at=shown.waits_at,
    )
