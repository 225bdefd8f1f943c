"""What a cluster answers: the JSON of the commands and of the HTTP API, as types. Names are stable.

The OpenAPI document is made from these, so that it cannot say anything else.
"""

from typing import Annotated

import msgspec

from primacy.cluster.control.wording import Json
from primacy.replication.records import Decision, HistoryRecord, RequestOutcome


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base: immutable, by names."""


class NodeAnswer(Answer, frozen=True, kw_only=True):
    """One node, as the store and its member show it. What is not known is null."""

    node: str
    role: str
    health: str
    """`ok`, or what is wrong, in words."""
    is_healthy: bool
    epoch: int = 0
    behind_transactions: int | None = None
    behind_bytes: int | None = None
    """Of the primary's log, not received here; not every engine says it."""
    is_in_sync_set: bool = False
    suspicion: dict[str, float] = {}
    """phi of this node as each other one hears it; 8 and more: it has gone."""
    state: str | None = None
    position: str = ""
    received: str | None = None
    applied: str | None = None
    is_read_only: bool | None = None
    io_thread: bool | None = None
    sql_thread: bool | None = None
    acknowledges: bool | None = None
    upstream: str | None = None
    error: str | None = None
    is_disk_full: bool = False
    heartbeat_age_s: float | None = None
    waiting_commits: int = 0
    blocked_on: list[str] = []
    unexpected_clients: list[str] = []
    diverged_count: int = 0
    diverged_path: str = ""
    doing: str = ""
    reported_at_s: float | None = None


class MemberAnswer(Answer, frozen=True, kw_only=True):
    """One member of the store."""

    node: str
    is_reachable: bool
    leader: str | None = None
    term: int | None = None
    commit_index: int | None = None
    applied_index: int | None = None
    revision: int | None = None
    excluded_reason: str | None = None


class StoreAnswer(Answer, frozen=True, kw_only=True):
    has_majority: bool
    leader: str | None
    members: list[MemberAnswer]


class DurabilityAnswer(Answer, frozen=True, kw_only=True):
    """Whose acknowledgement counts."""

    epoch: int
    primary: str
    acks: int
    members: list[str]
    is_lossy: bool
    is_degraded: bool


class PolicyAnswer(Answer, frozen=True, kw_only=True):
    """Which replicas must hold a write: what is wanted, by whom, and whether it is in force."""

    acks: int
    on_timeout: str
    timeout_s: float
    degrade_failover: str
    source: str
    """configuration, or operator: then the file's values are passed over."""
    set_at_s: float | None
    is_in_force: bool
    waits_for: str
    """What keeps it from being in force; empty: it is."""
    differs_from_configuration: list[str]


class DivergedAnswer(Answer, frozen=True, kw_only=True):
    """Transactions that lost their place in the history, saved on one node."""

    id: str
    node: str
    epoch: int
    """The one at whose beginning the histories part, or in which a replica wrote by itself."""
    count: int
    own_count: int
    """Of primacy itself beside them: heartbeats, markers."""
    first: str
    last: str
    tables: list[str]
    path: str
    is_certain: bool
    """False: the log could not be read to its end, there may be more."""
    ended: str
    """What became of the node's data: cut, rewound, cloned; empty: nothing yet."""
    obstacle: str
    """Why they were not taken back row by row."""
    is_errant: bool
    """Somebody wrote them on a replica, past `read_only`."""
    saved_at_s: float
    dismissed_at_s: float | None


class DivergedListAnswer(Answer, frozen=True, kw_only=True):
    diverged: list[DivergedAnswer]


class DivergedTextAnswer(Answer, frozen=True, kw_only=True):
    """One of them, with what it changed, statement by statement."""

    facts: DivergedAnswer
    text: str
    more_lines: int
    """Of the file, beyond what is shown."""


class EpochAnswer(Answer, frozen=True, kw_only=True):
    """How an epoch came about."""

    epoch: int
    node: str
    kind: str
    """bootstrap, failover, switchover or restart."""
    reason: str
    steps_s: dict[str, float]
    at_s: float
    """Wall time, seconds since 1970."""
    lost_count: int
    lost_path: str
    accepted_loss: list[str]
    may_have_lost: str
    """Why acknowledged writes may be missing in it; empty: none are."""


class DecisionAnswer(Answer, frozen=True, kw_only=True):
    """What a node's brain decided, and why."""

    node: str
    number: int
    action: str
    reason: str
    epoch: int
    at_s: float
    steps_s: dict[str, float]


class ClusterAnswer(Answer, frozen=True, kw_only=True):
    """The whole cluster as one reader saw it."""

    cluster: str
    epoch: int
    primary: str | None
    lease_left_s: float | None
    durability: DurabilityAnswer | None
    policy: PolicyAnswer | None
    diverged: list[DivergedAnswer]
    """Those that nobody has dismissed."""
    store: StoreAnswer
    source: str | None
    """Without a majority: the member whose own, perhaps old, copy this is."""
    is_paused: bool
    switchover: str | None
    """The request that is under way."""
    failover: str | None
    last_change: EpochAnswer | None
    problems: list[str]
    """What to know first, most urgent first. Empty: all is well."""
    notes: list[str]
    """What is as it was wanted, and may surprise somebody one day."""
    nodes: list[NodeAnswer]


class HistoryAnswer(Answer, frozen=True, kw_only=True):
    epochs: list[EpochAnswer]


class DecisionsAnswer(Answer, frozen=True, kw_only=True):
    nodes: dict[str, list[DecisionAnswer]]


class DoneAnswer(Answer, frozen=True, kw_only=True):
    """How a request ended."""

    is_done: bool
    detail: str
    request: Annotated[str | None, msgspec.Meta(description="Its id; null for a plain write")] = (
        None
    )


class RestartedAnswer(Answer, frozen=True, kw_only=True):
    """One node that was restarted, and is well again."""

    node: str
    parts: list[str]
    """restart-agent, restart-database."""
    took_s: float


class RestartAnswer(Answer, frozen=True, kw_only=True):
    """How a restart ended, and how far it came."""

    restarted: list[RestartedAnswer]
    switched_to: str | None
    is_done: bool
    detail: str


class Problem(Answer, frozen=True, kw_only=True):
    """Why a request was not carried out, and what to do."""

    error: str
    hint: str


def epoch_answer(record: HistoryRecord) -> EpochAnswer:
    return EpochAnswer(
        epoch=record.epoch,
        node=record.node,
        kind=record.kind,
        reason=record.reason,
        steps_s=record.steps_s,
        at_s=record.wall_s,
        lost_count=record.lost_count,
        lost_path=record.lost_path,
        accepted_loss=list(record.accepted_loss),
        may_have_lost=record.may_have_lost,
    )


def decision_answer(decision: Decision) -> DecisionAnswer:
    return DecisionAnswer(
        node=decision.node,
        number=decision.number,
        action=decision.action,
        reason=decision.reason,
        epoch=decision.epoch,
        at_s=decision.wall_s,
        steps_s=decision.steps_s,
    )


def done_answer(outcome: RequestOutcome) -> DoneAnswer:
    return DoneAnswer(is_done=outcome.is_done, detail=outcome.detail, request=outcome.request_id)


def as_json(answer: Answer) -> dict[str, Json]:
    """For printing: plain dicts and lists."""
    shown: dict[str, Json] = msgspec.to_builtins(answer)
    return shown
