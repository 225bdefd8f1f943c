"""What a server shows of itself to its agent: one value, made at once, without a disk."""

from primacy.clock import Clock
from primacy.engines.sqlite.control import (
    Attached,
    Doors,
    Receiving,
    Shown,
    Upstream,
    Writes,
)
from primacy.engines.sqlite.server.reigning import Reigning
from primacy.engines.sqlite.server.replica import Replica
from primacy.engines.sqlite.server.roles import Roles
from primacy.engines.sqlite.server.spec import Spec
from primacy.engines.sqlite.server.state import ServerState
from primacy.model import NodeId
from primacy.replication.pull.acks import AckOn
from primacy.replication.pull.door import PullDoor


class Showing:
    """Remembers only since when the disk has not answered."""

    def __init__(self, spec: Spec, roles: Roles, state: ServerState, *, clock: Clock) -> None:
        self._spec = spec
        self._roles = roles
        self._state = state
        self._clock = clock
        self._at_disk: dict[object, float] = {}

    def shown(self) -> Shown:
        roles, state, log = self._roles, self._state, self._roles.log
        reigning, replica, door = roles.reigning, roles.replica, roles.pull_door
        asked = reigning.requirement if reigning is not None else None
        acks = reigning.leading.acks if reigning is not None and reigning.leading else None
        now_s = self._clock.now_s()
        durable = log.durable
        return Shown(
            cluster=self._spec.cluster,
            node=NodeId(self._spec.node),
            role=roles.now,
            under_way=roles.under_way,
            epoch=state.epoch if reigning is None else reigning.epoch,
            row=0 if reigning is None else reigning.row,
            first=log.first,
            end=log.end,
            durable=durable,
            applied=state.applied,
            position_text=str(log.gtids_until(durable.index)),
            doors=Doors.CLOSED if reigning is None else reigning.doors,
            writes=Writes.NONE if reigning is None else reigning.writes,
            writes_reason=_why(reigning),
            acks=asked.acks if asked is not None else 0,
            ack_on=asked.ack_on if asked is not None else AckOn.RECEIVED,
            attached=_attached(door),
            excluded=tuple(sorted(door.excluded)) if door is not None else (),
            waiting_commits=acks.waiting_count if acks is not None else 0,
            waits_at=acks.waits_at if acks is not None else 0,
            upstream=_upstream(replica) if replica is not None else None,
            trouble=roles.trouble,
            must_clone=roles.must_clone,
            log_failure=log.failure,
            log_damage=door.counts.damage if door is not None else "",
            heartbeat=state.heartbeat,
            heartbeat_age_s=now_s - state.heartbeat_at_s if state.heartbeat else 0.0,
            disk_stuck_s=self._stuck_s(now_s),
        )

    def _stuck_s(self, now_s: float) -> float:
        """Since when the oldest thing that the disk was asked for has been seen to wait."""
        known = self._at_disk
        self._at_disk = {step: known.get(step, now_s) for step in self._roles.log.steps_at_disk}
        return now_s - min(self._at_disk.values(), default=now_s)


def _why(reigning: Reigning | None) -> str:
    is_over = reigning is not None and reigning.writes in (Writes.IN_DOUBT, Writes.BROKEN)
    return reigning.why if reigning is not None and is_over else ""


def _attached(door: PullDoor | None) -> tuple[Attached, ...]:
    if door is None:
        return ()
    return tuple(
        Attached(
            node=each.node,
            incarnation=each.incarnation,
            peer=each.peer,
            received=each.received,
            applied=each.applied,
            acknowledges=each.acknowledges,
            lag_transactions=each.lag.transactions,
            lag_bytes=each.lag.size_bytes,
            lag_s=each.lag.delay_s,
        )
        for each in door.receivers
    )


def _upstream(replica: Replica) -> Upstream:
    status = replica.receiver.status
    return Upstream(
        state=Receiving[status.state.name],
        node=status.upstream,
        epoch=status.epoch,
        acknowledges=replica.acknowledges,
        reason=status.reason,
        refusal=status.refusal.name if status.refusal is not None else "",
        end=status.source_end,
        lag_transactions=status.lag.transactions,
        lag_bytes=status.lag.size_bytes,
        lag_s=status.lag.delay_s,
        path=status.path,
        parted_after=status.parted.common if status.parted is not None else None,
        purged_to=status.purged,
    )
