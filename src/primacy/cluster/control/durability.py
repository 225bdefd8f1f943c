"""The durability policy of the running cluster: what is in force, and another one instead.

The configuration gives the values until an operator sets others here. The record stands above the
file: on every node, whatever its file says, until it is reset. A change is brought about by the
primary's brain, by the one transition that every change of the durability record takes.

Errors    `Rejected`: the engine does not keep it. `Conflict`: somebody else set another meanwhile.
          `OutcomeUnknown`: it is recorded, and not in force in time; it stays recorded.
"""

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import Literal, get_args

import msgspec

from primacy.cluster.control.answers import PolicyAnswer
from primacy.cluster.control.requests import Desk, Tell, tell_nobody
from primacy.cluster.control.wording import when
from primacy.cluster.policy import AcksWord, acks_of
from primacy.coordination.api import Delete, Put, Store, Txn, unchanged
from primacy.engines.api import Capabilities
from primacy.errors import Conflict, OutcomeUnknown, Rejected, Unavailable
from primacy.model import NodeId, Revision
from primacy.replication.durability import shown
from primacy.replication.records import (
    DURABILITY_KEY,
    NODES_PREFIX,
    POLICY_KEY,
    PREFIX,
    PRIMARY_KEY,
    DurabilityPolicy,
    DurabilityRecord,
    NodeStatus,
    PrimaryRecord,
    decoded,
    encoded,
)

OnTimeout = Literal["block", "degrade"]
DegradeFailover = Literal["refuse", "lossy"]

WITHIN_S = 30.0
"""How long a caller waits who does not say: a replica that has to catch up first takes longer."""
TIMEOUT_MAX_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What should be different; None: as it is."""

    acks: int | AcksWord | None = None
    on_timeout: str | None = None
    timeout_s: float | None = None
    degrade_failover: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the store holds of it at one moment."""

    policy: DurabilityPolicy | None = None
    policy_mod: Revision = Revision(0)
    primary: PrimaryRecord | None = None
    durability: DurabilityRecord | None = None
    primary_status: NodeStatus | None = None


async def show(desk: Desk) -> PolicyAnswer:
    return policy_answer(await read_standing(desk.store), _configured(desk))


async def set_policy(
    desk: Desk,
    wish: Wish,
    capabilities: Capabilities,
    *,
    within_s: float = WITHIN_S,
    tell: Tell = tell_nobody,
) -> PolicyAnswer:
    """Record the wish, and wait until the cluster acts by it."""
    if wish == Wish():
        raise Rejected(
            "nothing to set", hint="Name acks, on_timeout, timeout_s or degrade_failover."
        )
    wish = resolved(wish, capabilities, desk.roster.data_nodes)
    standing, configured = await read_standing(desk.store), _configured(desk)
    record = merged(standing.policy or configured, wish, wall_s=desk.clock.wall_s())
    problems = policy_problems(record, capabilities, desk.roster.data_nodes)
    if problems:
        raise Rejected("; ".join(problems), hint="Nothing was changed.")
    await _write(desk.store, standing, Put(POLICY_KEY, encoded(record)))
    return await wait_until_in_force(desk, within_s=within_s, tell=tell)


async def reset_policy(
    desk: Desk, *, within_s: float = WITHIN_S, tell: Tell = tell_nobody
) -> PolicyAnswer:
    """The configuration's values again. Wait until the cluster acts by them."""
    standing = await read_standing(desk.store)
    if standing.policy is not None:
        await _write(desk.store, standing, Delete(POLICY_KEY))
    return await wait_until_in_force(desk, within_s=within_s, tell=tell)


async def wait_until_in_force(desk: Desk, *, within_s: float, tell: Tell) -> PolicyAnswer:
    revision = (await desk.store.range(POLICY_KEY)).revision
    answer = await show(desk)
    if answer.is_in_force:
        return answer
    try:
        async with (
            asyncio.timeout(within_s),
            desk.store.watch(
                PREFIX, is_prefix=True, from_revision=Revision(revision + 1)
            ) as batches,
        ):
            tell(answer.waits_for)
            async for _ in batches:
                said, answer = answer.waits_for, await show(desk)
                if answer.is_in_force:
                    return answer
                if answer.waits_for != said:
                    tell(answer.waits_for)
    except TimeoutError:
        raise OutcomeUnknown(
            f"recorded, and not in force within {within_s:.0f} s: {answer.waits_for}",
            hint="It comes into force as soon as that has changed. `primacy durability show`.",
        ) from None
    raise Unavailable("the watch of the store has ended", hint="See `primacy durability show`.")


# ---- pure


def resolved(wish: Wish, capabilities: Capabilities, data_nodes: tuple[NodeId, ...]) -> Wish:
    """A word for `acks` as the number that it means for these nodes. `Rejected` where the engine
    does not keep the word."""
    if wish.acks is None or isinstance(wish.acks, int):
        return wish
    why = capabilities.acks_problem(wish.acks, replica_count=len(data_nodes) - 1)
    if why:
        raise Rejected(f"acks = {wish.acks}: {why}", hint="Nothing was changed.")
    return replace(wish, acks=acks_of(wish.acks, data_node_count=len(data_nodes)))


def merged(base: DurabilityPolicy, wish: Wish, *, wall_s: float) -> DurabilityPolicy:
    """`base` with the wish; what is wished is checked by `policy_problems`."""
    changes = {
        name: value
        for name in ("acks", "on_timeout", "timeout_s", "degrade_failover")
        if (value := getattr(wish, name)) is not None
    }
    return msgspec.structs.replace(base, request_id=secrets.token_hex(8), wall_s=wall_s, **changes)


def policy_problems(
    record: DurabilityPolicy, capabilities: Capabilities, data_nodes: tuple[NodeId, ...]
) -> list[str]:
    """Every rule that it breaks."""
    said: list[str] = []
    why = capabilities.acks_problem(record.acks, replica_count=len(data_nodes) - 1)
    if why:
        said.append(f"acks = {record.acks}: {why}")
    if record.on_timeout not in get_args(OnTimeout):
        said.append(f"on_timeout = {record.on_timeout!r}: block or degrade")
    if record.degrade_failover not in get_args(DegradeFailover):
        said.append(f"degrade_failover = {record.degrade_failover!r}: refuse or lossy")
    if not 0 < record.timeout_s <= TIMEOUT_MAX_S:
        said.append(f"timeout_s = {record.timeout_s}: more than 0 and at most {TIMEOUT_MAX_S:.0f}")
    return said


def policy_answer(standing: Standing, configured: DurabilityPolicy) -> PolicyAnswer:
    policy = standing.policy or configured
    waits_for = missing(standing, policy)
    return PolicyAnswer(
        acks=policy.acks,
        on_timeout=policy.on_timeout,
        timeout_s=policy.timeout_s,
        degrade_failover=policy.degrade_failover,
        source="configuration" if standing.policy is None else "operator",
        set_at_s=None if standing.policy is None else standing.policy.wall_s,
        is_in_force=not waits_for,
        waits_for=waits_for,
        differs_from_configuration=_differences(standing.policy, configured),
    )


def missing(standing: Standing, policy: DurabilityPolicy) -> str:
    """What keeps the policy from being in force; empty: it is."""
    primary, durability = standing.primary, standing.durability
    if primary is None:
        return "there is no primary that could bring it about"
    if durability is None or durability.epoch != primary.epoch:
        return f"{primary.node} has not opened its doors yet"
    status = standing.primary_status
    if status is None or status.policy_revision != standing.policy_mod:
        return f"{primary.node} has not taken it up yet"
    if policy.acks == 0:
        return "" if durability.is_lossy else f"{primary.node} still goes by {shown(durability)}"
    if durability.acks != policy.acks:
        need = f"{policy.acks} replica(s) must acknowledge"
        return f"{primary.node} still goes by {shown(durability)}: {need}"
    return ""


def policy_line(answer: PolicyAnswer) -> str:
    """For people: what is in force, and where it comes from."""
    patience = f" after {answer.timeout_s:g} s" if answer.on_timeout == "degrade" else ""
    source = (
        "as configured"
        if answer.source == "configuration"
        else f"set {when(answer.set_at_s or 0.0)} by `primacy durability set`"
    )
    pending = "" if answer.is_in_force else f"; not in force yet: {answer.waits_for}"
    return (
        f"policy: acks {answer.acks}, {answer.on_timeout}{patience}, after degrading"
        f" {answer.degrade_failover} ({source}){pending}"
    )


def _differences(record: DurabilityPolicy | None, configured: DurabilityPolicy) -> list[str]:
    if record is None:
        return []
    return [
        f"{name}: {getattr(record, name)}, the file says {getattr(configured, name)}"
        for name in ("acks", "on_timeout", "timeout_s", "degrade_failover")
        if getattr(record, name) != getattr(configured, name)
    ]


# ---- the store


async def read_standing(store: Store) -> Standing:
    """Each key as it is when it is read."""
    policy = (await store.range(POLICY_KEY)).items
    primary = (await store.range(PRIMARY_KEY)).items
    durability = (await store.range(DURABILITY_KEY)).items
    record = decoded(PrimaryRecord, primary[0].value) if primary else None
    status = (await store.range(f"{NODES_PREFIX}{record.node}")).items if record else ()
    return Standing(
        policy=decoded(DurabilityPolicy, policy[0].value) if policy else None,
        policy_mod=policy[0].mod if policy else Revision(0),
        primary=record,
        durability=decoded(DurabilityRecord, durability[0].value) if durability else None,
        primary_status=decoded(NodeStatus, status[0].value) if status else None,
    )


async def _write(store: Store, standing: Standing, op: Put | Delete) -> None:
    written = await store.txn(
        Txn(compares=(unchanged(POLICY_KEY, standing.policy_mod),), then=(op,))
    )
    if not written.is_success:
        raise Conflict(
            "somebody else has set another policy meanwhile", hint="Look at it, then set yours."
        )


def _configured(desk: Desk) -> DurabilityPolicy:
    configured = desk.roster.durability
    if configured is None:
        raise Rejected("the configured durability is not known here", hint="Name the file.")
    return configured
