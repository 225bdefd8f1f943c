"""Which database a connection goes to: a pure function of the router's view.

    rw, the primary is on this host      the database here, under the primary's epoch
    rw, the primary is elsewhere         the peer door of the router on the primary's host
    ro                                   a replica within the lag bound: here first, else in turn
    nobody fits                          hold the connection, with the reason in words

Promises: a connection that a peer router has sent is never sent on again, so there are no loops;
under rw nothing goes anywhere while the view is older than one ttl.
"""

from collections.abc import Set
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from primacy.model import Epoch, NodeId
from primacy.routing.view import RouterView, Seen

SWITCHOVER_HOLD_S = 5.0
"""Longer than a switchover that works: after it a request that stands holds nobody back."""

NOBODY: frozenset[NodeId] = frozenset()


class Intent(Enum):
    """What a client asked for by its choice of door."""

    RW = "rw"
    RO = "ro"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePolicy:
    """What the operator wants of the routes."""

    ttl_s: float
    """Of the primary's lease: a view unconfirmed for so long closes rw."""
    lag_max_transactions: int = 1000
    lag_max_s: float = 5.0
    ro_to_primary: bool = True
    """Whether ro may use the primary where no replica is within the bound."""
    status_age_max_s: float = 15.0
    """A node whose agent has been silent for so long is no place to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about one connection."""

    here: NodeId
    intent: Intent
    is_forwarded: bool = False
    """Another router sent it: it goes to the database here or nowhere."""
    asked_epoch: Epoch = Epoch(0)
    """The epoch that the sending router knew."""
    turn: int = 0
    """Counts the questions, so that replicas are used in turn."""
    avoid: Set[NodeId] = NOBODY
    """Nodes that did not answer this very connection."""


@dataclass(frozen=True, slots=True)
class ToDatabase:
    """The database on this host. With an epoch, answers pass only while the page permits it."""

    node: NodeId
    epoch: Epoch | None


@dataclass(frozen=True, slots=True)
class ToPeer:
    """The peer door of that node's router. With an epoch it is a connection to the primary."""

    node: NodeId
    epoch: Epoch | None


@dataclass(frozen=True, slots=True)
class Hold:
    """Nobody fits now: wait for the view to change."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Waiting cannot help."""

    reason: str


Destination = ToDatabase | ToPeer
Route = Destination | Hold | Refuse


def route(question: Question, view: RouterView, policy: RoutePolicy, *, now_s: float) -> Route:
    """Where the connection goes now."""
    match question.intent:
        case Intent.RW:
            return _to_primary(question, view, policy, now_s=now_s)
        case Intent.RO:
            return _to_replica(question, view, policy, now_s=now_s)
        case _:
            assert_never(question.intent)


def why_cut(
    destination: Destination, view: RouterView, policy: RoutePolicy, *, now_s: float
) -> str | None:
    """Why an open connection to there must end now; None while it may go on."""
    primary = view.primary
    if destination.epoch is None:
        is_primary = primary is not None and primary.node == destination.node
        return f"{destination.node} has become the primary" if is_primary else None
    if not is_confirmed(view, policy, now_s=now_s):
        return _stale(view, now_s=now_s)
    if primary is None:
        return f"{destination.node} is no longer primary of epoch {destination.epoch}"
    if primary.epoch != destination.epoch or primary.node != destination.node:
        return f"{primary.node} is the primary now, in epoch {primary.epoch}"
    return None


def is_confirmed(view: RouterView, policy: RoutePolicy, *, now_s: float) -> bool:
    return now_s - view.confirmed_at_s < policy.ttl_s


def is_switching(view: RouterView, *, now_s: float) -> bool:
    """A planned change is under way: nothing new is sent to the primary that stands."""
    return view.is_switching and now_s - view.switchover_seen_at_s < SWITCHOVER_HOLD_S


def _to_primary(
    question: Question, view: RouterView, policy: RoutePolicy, *, now_s: float
) -> Route:
    if not is_confirmed(view, policy, now_s=now_s):
        return Hold(_stale(view, now_s=now_s))
    if view.primary is None:
        return Hold(_no_primary(view))
    primary, epoch = view.primary, view.open_epoch
    if question.is_forwarded and primary.node != question.here:
        if primary.epoch < question.asked_epoch:
            return Hold(f"this router has not heard of epoch {question.asked_epoch} yet")
        return Refuse(f"{primary.node} is the primary, in epoch {primary.epoch}")
    if epoch is None:
        return Hold(f"{primary.node} is opening epoch {primary.epoch}")
    if is_switching(view, now_s=now_s):
        return Hold(f"a switchover from {primary.node} is under way")
    if primary.node == question.here:
        return ToDatabase(primary.node, epoch)
    return ToPeer(primary.node, epoch)


def _to_replica(
    question: Question, view: RouterView, policy: RoutePolicy, *, now_s: float
) -> Route:
    here = question.here
    fits = [
        node
        for node in sorted(view.nodes)
        if node not in question.avoid
        and (view.primary is None or node != view.primary.node)
        and _is_fit(view.nodes[node], view, policy, now_s=now_s)
    ]
    if here in fits or (question.is_forwarded and here in view.nodes):
        return _here(question, view)
    if question.is_forwarded:
        return Refuse(f"{here} has no database that this router knows")
    if fits:
        return ToPeer(fits[question.turn % len(fits)], None)
    if policy.ro_to_primary:
        return _to_primary(question, view, policy, now_s=now_s)
    return Hold("no replica is within the lag bound")


def _here(question: Question, view: RouterView) -> Route:
    """The database here as a replica, unless this view knows that it leads by now."""
    if view.primary is not None and view.primary.node == question.here:
        return Refuse(f"{question.here} is the primary by now")
    return ToDatabase(question.here, None)


def _is_fit(seen: Seen, view: RouterView, policy: RoutePolicy, *, now_s: float) -> bool:
    status = seen.status
    if not status.is_healthy_replica or now_s - seen.at_s > policy.status_age_max_s:
        return False
    if status.heartbeat_age_s > policy.lag_max_s:
        return False
    leader = view.nodes.get(view.primary.node) if view.primary is not None else None
    if leader is None:
        return True
    lag = leader.status.applied.sequence - status.applied.sequence
    return lag <= policy.lag_max_transactions


def _stale(view: RouterView, *, now_s: float) -> str:
    if view.confirmed_at_s < 0:
        return "this router has not reached the store yet"
    return f"the store has not answered this router for {now_s - view.confirmed_at_s:.1f} s"


def _no_primary(view: RouterView) -> str:
    """No primary, and what is missing for the next one as far as the records tell."""
    record = view.durability
    if record is None:
        return "there is no primary yet"
    awaited = view.epoch + 1
    missing = [
        member.node
        for member in record.members
        if (note := view.seals.get(member.node)) is None or note.epoch < awaited
    ]
    if missing:
        return f"there is no primary: waiting for seals of {', '.join(missing)}"
    return "there is no primary: the sealed replicas are choosing one"
