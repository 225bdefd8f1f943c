"""What an operator asks of the cluster, and how it ended: functions over a `Store`.

Promises  A request that is not taken up in time is withdrawn, so that it cannot come true later
          when nobody expects it; where it was taken up meanwhile, the error says so. So is one
          whose waiter is interrupted, as far as the store answers at once.
Errors    `Rejected`: it can never be done. `Conflict`: another one is under way, or the brain
          refused. `Withdrawn`: not in time. `OutcomeUnknown`: taken up, and its end was not seen.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from primacy.clock import Clock
from primacy.cluster.control.roster import Roster
from primacy.coordination.api import Change, Delete, Put, Store, Txn, absent, holds_value
from primacy.errors import Conflict, OutcomeUnknown, PrimacyError, Rejected, Unavailable, Withdrawn
from primacy.model import Revision
from primacy.replication.records import (
    FAILOVER_KEY,
    NODES_PREFIX,
    OUTCOMES_PREFIX,
    PAUSE_KEY,
    PREFIX,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
    FailoverRequest,
    NodeStatus,
    NodeTask,
    Pause,
    PrimaryRecord,
    RequestOutcome,
    SwitchoverRequest,
    decoded,
    encoded,
)

Tell = Callable[[str], None]
"""Hears what happens while somebody waits, line by line; no line twice."""

SWITCHOVER_WITHIN_S = 30.0
FAILOVER_WITHIN_S = 60.0
"""How long a caller waits who does not say."""

FORGET_WITHIN_S = 0.5
"""A command that was interrupted tries this long to take its request back."""

PAUSED = "paused: no elections and no rejoins until `primacy resume`"
RESUMED = "the pause has ended"


@dataclass(frozen=True, slots=True)
class Desk:
    """Where requests are handed in."""

    store: Store
    roster: Roster
    clock: Clock


def tell_nobody(_line: str) -> None:
    """For a caller who wants the end only."""


async def switchover(
    desk: Desk, *, to: str | None, timeout_s: float, tell: Tell = tell_nobody
) -> RequestOutcome:
    """Move the primary to `to`, or to the best replica. Returns once that is done."""
    request = SwitchoverRequest(
        request_id=secrets.token_hex(8),
        target=None if to is None else desk.roster.candidate(to),
        wall_s=desk.clock.wall_s(),
    )
    return await ask(desk.store, SWITCHOVER_KEY, request, timeout_s, tell)


async def failover(
    desk: Desk,
    *,
    nodes: Sequence[str],
    is_loss_accepted: bool,
    timeout_s: float,
    tell: Tell = tell_nobody,
) -> RequestOutcome:
    """Promote although acknowledged writes may be only on `nodes`, which are gone for good."""
    given_up = tuple(sorted({desk.roster.node(name) for name in nodes}))
    if not given_up:
        raise Rejected(
            "a failover that accepts a loss names the nodes whose data is given up",
            hint="Name them.",
        )
    if not is_loss_accepted:
        raise Rejected(
            f"writes that were acknowledged may exist only on {', '.join(given_up)}",
            hint="If these nodes can return, let them. If not, say so with --accept-loss.",
        )
    request = FailoverRequest(
        request_id=secrets.token_hex(8), accept_loss=given_up, wall_s=desk.clock.wall_s()
    )
    return await ask(desk.store, FAILOVER_KEY, request, timeout_s, tell)


async def pause(desk: Desk, *, reason: str) -> str:
    """No elections and no rejoins until `resume`; fencing goes on. Returns what to say of it."""
    record = Pause(reason=reason, wall_s=desk.clock.wall_s())
    await desk.store.txn(Txn(then=(Put(PAUSE_KEY, encoded(record)),)))
    return PAUSED


async def resume(desk: Desk) -> str:
    """End a pause; one that is not there is ended already. Returns what to say of it."""
    await desk.store.txn(Txn(then=(Delete(PAUSE_KEY),)))
    return RESUMED


def progress_line(change: Change) -> str | None:
    """What one change of the store tells somebody who waits; None: nothing."""
    after = change.after
    if change.key == PRIMARY_KEY:
        if after is None:
            return "the primary record is gone: the lease was given up or ended"
        record = decoded(PrimaryRecord, after.value)
        return f"{record.node} holds the primary record of epoch {record.epoch}"
    if change.key.startswith(NODES_PREFIX) and after is not None:
        status = decoded(NodeStatus, after.value)
        return f"{status.node}: {status.doing}" if status.doing else None
    return None


async def ask(
    store: Store,
    key: str,
    request: SwitchoverRequest | FailoverRequest | NodeTask,
    timeout_s: float,
    tell: Tell,
) -> RequestOutcome:
    """Write the request and wait for its outcome."""
    value = encoded(request)
    taken = await store.txn(Txn(compares=(absent(key),), then=(Put(key, value),)))
    if not taken.is_success:
        raise Conflict(
            "another request of this kind is under way",
            hint="See `primacy status`, and ask again when it has ended.",
        )
    try:
        async with asyncio.timeout(timeout_s):
            outcome = await _outcome(store, request.request_id, taken.revision, tell)
    except TimeoutError:
        raise await _given_up(store, key, value, timeout_s) from None
    except asyncio.CancelledError:
        await _forgotten(store, key, value)
        raise
    if not outcome.is_done:
        raise Conflict(
            f"not done: {outcome.detail}", hint="See `primacy status` and `primacy why`."
        )
    return outcome


async def _given_up(
    store: Store, key: str, value: bytes, timeout_s: float
) -> Withdrawn | OutcomeUnknown:
    """Take the request back, if nobody has begun with it; the error for either case."""
    withdraw = Txn(compares=(holds_value(key, value),), then=(Delete(key),))
    if (await store.txn(withdraw)).is_success:
        return Withdrawn(
            f"not done within {timeout_s:.0f} s, and withdrawn",
            hint="`primacy status` and `primacy why` say what is in the way.",
        )
    return OutcomeUnknown(
        f"the request was taken up, and its end not seen within {timeout_s:.0f} s",
        hint="See `primacy history`.",
    )


async def _forgotten(store: Store, key: str, value: bytes) -> None:
    """Whoever asked has gone: nobody waits for it any more. Within a moment, or not at all."""
    withdraw = Txn(compares=(holds_value(key, value),), then=(Delete(key),))
    with contextlib.suppress(PrimacyError, TimeoutError):
        async with asyncio.timeout(FORGET_WITHIN_S):
            await store.txn(withdraw)


async def _outcome(store: Store, request_id: str, revision: Revision, tell: Tell) -> RequestOutcome:
    wanted = f"{OUTCOMES_PREFIX}{request_id}"
    said: set[str] = set()
    async with store.watch(PREFIX, is_prefix=True, from_revision=revision) as batches:
        async for batch in batches:
            for change in batch.changes:
                if change.key == wanted and change.after is not None:
                    return decoded(RequestOutcome, change.after.value)
                line = progress_line(change)
                if line is not None and line not in said:
                    said.add(line)
                    tell(line)
    raise Unavailable("the watch of the store has ended", hint="See `primacy history`.")
