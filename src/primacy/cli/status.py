"""`primacy status`: the cluster as a table or as JSON, once or again and again."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from primacy.cli.format import console, say_json, table
from primacy.cli.options import (
    ApiOption,
    ConfigOption,
    JsonOption,
    TokenFileOption,
    run_to_end,
)
from primacy.cli.ways import way_of
from primacy.clock import SystemClock
from primacy.cluster.control.answers import ClusterAnswer, NodeAnswer, as_json
from primacy.cluster.control.durability import policy_line
from primacy.cluster.control.wording import seconds, when
from primacy.model import Role

WATCH_EVERY_S = 1.0
"""A person cannot read faster, and each reading costs the store's leader a round."""

COLUMNS = (
    "node", "role", "state", "health", "epoch", "position", "io", "sql", "behind", "heartbeat",
    "sync", "phi", "store", "doing",
)  # fmt: skip


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    as_json_: JsonOption = False,
) -> None:
    """Each node's role, health, position and lag; the sync set; whom a blocked write waits for.

    Exits with 0 when all is well, and with 1 when something needs a look.
    """
    show = _watch if watch else _once
    is_well = run_to_end(show(config, api, token_file, is_json=as_json_))
    raise typer.Exit(0 if is_well else 1)


async def _once(
    config: Path | None, api: str | None, token_file: Path | None, *, is_json: bool
) -> bool:
    async with way_of(config, api, token_file) as way:
        answer = await way.status()
    if is_json:
        say_json(as_json(answer))
    else:
        console().print(drawn(answer))
    return not answer.problems


async def _watch(
    config: Path | None, api: str | None, token_file: Path | None, *, is_json: bool
) -> bool:
    clock = SystemClock()
    async with way_of(config, api, token_file) as way:
        with Live(console=console(), auto_refresh=False, screen=False) as live:
            while True:  # Until Ctrl-C.
                answer = await way.status()
                if is_json:
                    say_json(as_json(answer), is_compact=True)
                else:
                    live.update(drawn(answer), refresh=True)
                await clock.sleep(WATCH_EVERY_S)


def drawn(answer: ClusterAnswer) -> Group:
    """The cluster for people."""
    parts: list[Text] = [Text(line) for line in headline(answer)]
    notes = [Text(f"! {each}", style="bold yellow") for each in answer.problems]
    notes += [Text(f"note: {each}") for each in answer.notes]
    return Group(*parts, Text(), table(COLUMNS, rows(answer)), *([Text()] if notes else []), *notes)


def headline(answer: ClusterAnswer) -> list[str]:
    """What the table does not say of single nodes."""
    record, store, last = answer.durability, answer.store, answer.last_change
    at = "no primary" if answer.primary is None else f"primary {answer.primary}"
    lines = [
        f"cluster {answer.cluster}: {at}, epoch {answer.epoch},"
        f" lease left {seconds(answer.lease_left_s)}"
    ]
    if record is not None:
        members = ", ".join(record.members) or "nobody"
        kind = ", degraded" if record.is_degraded else ", lossy" if record.is_lossy else ""
        lines.append(f"durability: {record.acks} of {{{members}}} must hold a write{kind}")
    if answer.policy is not None:
        lines.append(policy_line(answer.policy))
    answering = sum(each.is_reachable for each in store.members)
    lines.append(
        f"store: leader {store.leader or 'unknown'},"
        f" {answering} of {len(store.members)} members answer"
    )
    if last is not None:
        lost = f"; {last.lost_count} transactions lost" if last.lost_count else ""
        lines.append(f"last change: {when(last.at_s)} {last.kind} to {last.node}{lost}")
    return lines


def rows(answer: ClusterAnswer) -> list[list[str]]:
    """One row per node, in the order of `COLUMNS`."""
    reachable = {each.node for each in answer.store.members if each.is_reachable}
    return [_row(answer, node, is_reachable=node.node in reachable) for node in answer.nodes]


def _row(answer: ClusterAnswer, node: NodeAnswer, *, is_reachable: bool) -> list[str]:
    is_replica = node.role == Role.REPLICA.value and node.state is not None
    store = "follower" if is_reachable else "-"
    return [
        node.node,
        node.role,
        node.state or "-",
        node.health,
        str(node.epoch),
        node.position or "-",
        _yes(node.io_thread) if is_replica else "-",
        _yes(node.sql_thread) if is_replica else "-",
        _behind(node),
        seconds(node.heartbeat_age_s) if is_replica else "-",
        "yes" if node.is_in_sync_set else "-",
        f"{max(node.suspicion.values()):.1f}" if node.suspicion else "-",
        "leader" if answer.store.leader == node.node else store,
        node.doing,
    ]


def _behind(node: NodeAnswer) -> str:
    if node.behind_transactions is None:
        return "-"
    size = f", {node.behind_bytes} B" if node.behind_bytes else ""
    return f"{node.behind_transactions}{size}"


def _yes(value: bool | None) -> str:  # noqa: FBT001 - a cell of the table is all that it is.
    return "yes" if value else "no"
