"""May a load balancer send clients here? One question per path, Patroni's paths and codes. Pure.

Source    Patroni's REST API, "Health check endpoints": 200 yes, 503 no.
Promises  `PRIMARY` is yes only while the deadline page lets answers pass: what a router asks.
          No question needs the store.
"""

from enum import Enum
from typing import Literal, assert_never

from primacy.cluster.control.answers import Answer
from primacy.model import Role
from primacy.web.facts import Facts
from primacy.web.lag import LagMax

READY_LAG_MAX = LagMax(transactions=1000)
"""Readiness, where the caller names no lag: the router's default bound."""

Mode = Literal["apply", "write"]
"""Whether a transaction counts as here once it is applied, or once it is received."""


class Check(Enum):
    """What is asked."""

    PRIMARY = "this node's answers to writes pass"
    REPLICA = "the database runs and follows"
    READ_ONLY = "primary or replica"
    SYNC = "a replica of the sync set"
    ASYNC = "a replica that is not in the sync set"
    HEALTH = "the database answers"
    LIVENESS = "the agent's loop goes round"
    READINESS = "primary, or a replica that receives, applies and is not far behind"


PATHS = {
    "/": Check.PRIMARY,
    "/primary": Check.PRIMARY,
    "/read-write": Check.PRIMARY,
    "/leader": Check.PRIMARY,
    "/master": Check.PRIMARY,
    "/replica": Check.REPLICA,
    "/read-only": Check.READ_ONLY,
    "/synchronous": Check.SYNC,
    "/sync": Check.SYNC,
    "/asynchronous": Check.ASYNC,
    "/async": Check.ASYNC,
    "/health": Check.HEALTH,
    "/liveness": Check.LIVENESS,
    "/readiness": Check.READINESS,
}


class HealthAnswer(Answer, frozen=True, kw_only=True):
    """The node as its own agent sees it, with the verdict."""

    is_ok: bool
    reason: str
    """Why not; empty where it is."""
    node: str
    cluster: str
    role: str
    state: str | None
    """Of the database; null where this agent has none, or has not looked yet."""
    epoch: int
    is_in_sync_set: bool
    behind_transactions: int | None
    heartbeat_age_s: float | None
    lease_left_s: float | None
    """Of the deadline page; null where it names no deadline."""
    is_paused: bool
    is_store_current: bool
    """False: the store has not confirmed this view for one lease's time."""
    view_age_s: float | None


def judged(
    check: Check, facts: Facts, *, lag: LagMax | None = None, mode: Mode = "apply"
) -> HealthAnswer:
    reason = why_not(check, facts, lag=lag, mode=mode)
    view = None if facts.shown is None else facts.shown.view
    age_s = facts.heartbeat_age_s
    return HealthAnswer(
        is_ok=not reason,
        reason=reason,
        node=facts.node,
        cluster=facts.cluster,
        role=facts.role.value,
        state=None if view is None else view.engine.state.name.lower(),
        epoch=facts.page.epoch if view is None else view.store.epoch,
        is_in_sync_set=facts.is_in_sync_set,
        behind_transactions=(facts.behind_transactions() if facts.role is Role.REPLICA else None),
        heartbeat_age_s=None if age_s is None else round(age_s, 3),
        lease_left_s=round(facts.page.left_s, 3) if facts.page.left_s else None,
        is_paused=view is not None and view.store.pause is not None,
        is_store_current=view is not None and view.is_store_current,
        view_age_s=None if view is None else round(facts.shown_age_s, 3),
    )


def why_not(check: Check, facts: Facts, *, lag: LagMax | None, mode: Mode) -> str:
    """Empty: yes."""
    match check:
        case Check.PRIMARY:
            return _not_primary(facts)
        case Check.REPLICA:
            return _not_replica(facts) or _too_far_behind(facts, lag, mode)
        case Check.READ_ONLY:
            if facts.is_primary:
                return ""
            return _not_replica(facts) or _too_far_behind(facts, lag, mode)
        case Check.SYNC | Check.ASYNC:
            return _not_of_set(facts, is_wanted=check is Check.SYNC) or _too_far_behind(
                facts, lag, mode
            )
        case Check.HEALTH:
            return "" if facts.is_running else _not_running(facts)
        case Check.LIVENESS:
            return _not_alive(facts)
        case Check.READINESS:
            if facts.is_primary:
                return ""
            return _not_following(facts) or _too_far_behind(facts, lag or READY_LAG_MAX, mode)
        case _:
            assert_never(check)


def _not_primary(facts: Facts) -> str:
    if facts.is_primary:
        return ""
    if facts.page.state == "open":
        return "the lease's deadline has passed"
    if facts.page.state == "armed":
        return f"its doors are not open yet in epoch {facts.page.epoch}"
    return (
        f"this node is a {facts.role.value}" if not facts.holds_record else "its doors are closed"
    )


def _not_replica(facts: Facts) -> str:
    if facts.role is not Role.REPLICA:
        return f"this node is the {facts.role.value}"
    if not facts.is_running or facts.shown is None:
        return _not_running(facts)
    replication = facts.shown.view.engine.replication
    if replication.is_diverged:
        return f"diverged: {replication.error or 'its log is no prefix of the primary'}"
    return replication.error or ""


def _not_of_set(facts: Facts, *, is_wanted: bool) -> str:
    reason = _not_replica(facts)
    if reason or facts.is_in_sync_set == is_wanted:
        return reason
    return "not in the sync set" if is_wanted else "in the sync set"


def _not_following(facts: Facts) -> str:
    reason = _not_replica(facts)
    if reason or facts.shown is None:
        return reason
    replication = facts.shown.view.engine.replication
    if not replication.is_receiving:
        return "does not receive"
    return "" if replication.is_applying else "does not apply"


def _not_running(facts: Facts) -> str:
    if facts.is_witness:
        return "a witness has no database"
    if facts.shown is None:
        return "the agent has not looked at its database yet"
    if not facts.is_fresh:
        return f"the agent's view is {facts.shown_age_s:.1f} s old"
    return f"the database is {facts.shown.view.engine.state.name.lower()}"


def _not_alive(facts: Facts) -> str:
    if facts.is_witness:
        return "" if facts.store is not None else "the store's member does not answer"
    return "" if facts.is_fresh else _not_running(facts)


def _too_far_behind(facts: Facts, lag: LagMax | None, mode: Mode) -> str:
    if lag is None:
        return ""
    if lag.seconds is not None:
        age_s = facts.heartbeat_age_s
        if age_s is None:
            return "no heartbeat was applied here yet"
        return "" if age_s <= lag.seconds else f"the newest heartbeat is {age_s:.1f} s old"
    behind = facts.behind_transactions(is_received=mode == "write")
    if behind is None:
        return "how far it is behind is not known: no primary is heard"
    allowed = lag.transactions or 0
    return "" if behind <= allowed else f"{behind} transactions behind, {allowed} are allowed"
