"""`switchover`, `failover`, `pause` and `resume`: what an operator asks for, and how it ended.

Promises  A request that is not taken up in time is withdrawn, so that it cannot come true later
          when nobody expects it; where it was taken up meanwhile, the command says so.
"""

import asyncio
import secrets
from typing import Annotated, TypeVar

import typer

from primacy.cli.format import say, say_json
from primacy.cli.options import ConfigOption, JsonOption, loaded, run_to_end
from primacy.cli.session import store_of
from primacy.clock import SystemClock
from primacy.config import Config, ConfigRejected, Problem
from primacy.coordination.api import Change, Delete, Put, Store, Txn, absent, holds_value
from primacy.errors import Conflict, OutcomeUnknown, Rejected, Unavailable
from primacy.model import NodeId, Revision
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
    Pause,
    PrimaryRecord,
    RequestOutcome,
    SwitchoverRequest,
    decoded,
    encoded,
)

R = TypeVar("R")

TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the end.")]


def switchover(
    *,
    to: Annotated[
        str | None, typer.Option(help="The node to become primary; else the best.")
    ] = None,
    timeout_s: TimeoutOption = 30.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move the primary to another node, without losing or refusing what clients sent."""
    found = loaded(config)
    if to is not None:
        _check_target(found, to)
    request = SwitchoverRequest(
        request_id=secrets.token_hex(8),
        target=None if to is None else NodeId(to),
        wall_s=SystemClock().wall_s(),
    )
    outcome = run_to_end(_ask(found, SWITCHOVER_KEY, request, timeout_s, is_quiet=as_json))
    _report(outcome, is_json=as_json)


def failover(
    *,
    nodes: Annotated[list[str], typer.Argument(help="Nodes whose data is given up.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Yes: what only these nodes hold may be lost.")
    ] = False,
    timeout_s: TimeoutOption = 60.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Promote although acknowledged writes may be only on NODES, which are gone for good.

    It still waits for the old primary's lease to end, and records what was given up.
    """
    found = loaded(config)
    for node in nodes:
        found.node(node)
    if not accept_loss:
        raise Rejected(
            f"writes that were acknowledged may exist only on {', '.join(nodes)}",
            hint="If these nodes can return, let them. If not, say so with --accept-loss.",
        )
    request = FailoverRequest(
        request_id=secrets.token_hex(8),
        accept_loss=tuple(NodeId(node) for node in sorted(set(nodes))),
        wall_s=SystemClock().wall_s(),
    )
    outcome = run_to_end(_ask(found, FAILOVER_KEY, request, timeout_s, is_quiet=as_json))
    _report(outcome, is_json=as_json)


def pause(
    *,
    reason: Annotated[str, typer.Option(help="Shown to whoever looks at the status.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """No elections and no rejoins until `resume`. Fencing goes on."""
    record = Pause(reason=reason, wall_s=SystemClock().wall_s())
    txn = Txn(then=(Put(PAUSE_KEY, encoded(record)),))
    run_to_end(_write(loaded(config), txn))
    _done("paused: no elections and no rejoins until `primacy resume`", is_json=as_json)


def resume(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """End a pause."""
    run_to_end(_write(loaded(config), Txn(then=(Delete(PAUSE_KEY),))))
    _done("the pause has ended", is_json=as_json)


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


async def _ask(
    config: Config,
    key: str,
    request: SwitchoverRequest | FailoverRequest,
    timeout_s: float,
    *,
    is_quiet: bool,
) -> RequestOutcome:
    """Write the request and wait for its outcome."""
    value = encoded(request)
    async with store_of(config) as store:
        taken = await store.txn(Txn(compares=(absent(key),), then=(Put(key, value),)))
        if not taken.is_success:
            raise Conflict(
                "another request of this kind is under way",
                hint="See `primacy status`, and ask again when it has ended.",
            )
        try:
            async with asyncio.timeout(timeout_s):
                return await _outcome(store, request.request_id, taken.revision, is_quiet=is_quiet)
        except TimeoutError:
            withdraw = Txn(compares=(holds_value(key, value),), then=(Delete(key),))
            if (await store.txn(withdraw)).is_success:
                raise Unavailable(
                    f"not done within {timeout_s:.0f} s, and withdrawn",
                    hint="`primacy status` and `primacy why` say what is in the way.",
                ) from None
            raise OutcomeUnknown(
                f"the request was taken up, and its end not seen within {timeout_s:.0f} s",
                hint="See `primacy history`.",
            ) from None


async def _outcome(
    store: Store, request_id: str, revision: Revision, *, is_quiet: bool
) -> RequestOutcome:
    wanted = f"{OUTCOMES_PREFIX}{request_id}"
    said: set[str] = set()
    async with store.watch(PREFIX, is_prefix=True, from_revision=revision) as batches:
        async for batch in batches:
            for change in batch.changes:
                if change.key == wanted and change.after is not None:
                    return decoded(RequestOutcome, change.after.value)
                line = progress_line(change)
                if line is not None and line not in said and not is_quiet:
                    said.add(line)
                    say(f"  {line}")
    raise Unavailable("the watch of the store has ended", hint="See `primacy history`.")


async def _write(config: Config, txn: Txn) -> None:
    async with store_of(config) as store:
        await store.txn(txn)


def _check_target(config: Config, to: str) -> None:
    node = config.node(to)
    if not node.database:
        rule = "a witness has no data and cannot be primary"
        raise ConfigRejected("the command line", (Problem("--to", repr(to), rule),))
    if node.never_promote:
        rule = f"nodes.{to}.never_promote forbids it"
        raise ConfigRejected("the command line", (Problem("--to", repr(to), rule),))


def _report(outcome: RequestOutcome, *, is_json: bool) -> None:
    if is_json:
        say_json(
            {
                "request": outcome.request_id,
                "is_done": outcome.is_done,
                "detail": outcome.detail,
            }
        )
    elif outcome.is_done:
        say(f"done: {outcome.detail}")
    if not outcome.is_done:
        raise Conflict(
            f"not done: {outcome.detail}", hint="See `primacy status` and `primacy why`."
        )


def _done(text: str, *, is_json: bool) -> None:
    if is_json:
        say_json({"is_done": True, "detail": text})
    else:
        say(text)
