"""`primacy config`: check a file, and bring a changed one into force on a running cluster.

Promises  `apply` says every mistake and every change that cannot be taken over, all at once, before
          anything is changed. No host's file is replaced unless all run the one that it was made
          from. The restart goes node by node, and stops at the first that does not heal.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from primacy.cli.config_keeper import parsed
from primacy.cli.format import say, say_json
from primacy.cli.options import (
    ConfigOption,
    JsonOption,
    StepTimeoutOption,
    loaded,
    run_to_end,
)
from primacy.cli.redaction import REMOVED, Redactor
from primacy.cli.session import roster, store_of
from primacy.clock import Clock, SystemClock
from primacy.cluster.control import rolling, tasks
from primacy.cluster.control.answers import as_json
from primacy.cluster.control.requests import Desk, Tell, tell_nobody
from primacy.cluster.control.rolling import Progress
from primacy.config import Config, ConfigRejected, Problem, path_of, warnings
from primacy.config.changes import (
    Changed,
    changes,
    digest,
    needs_server_restart,
    refusals,
)
from primacy.coordination.api import Put, Store, Txn, unchanged
from primacy.errors import Conflict, PrimacyError, Unavailable
from primacy.model import NodeId, Revision
from primacy.replication.records import (
    CONFIG_KEY,
    CONFIG_SEEN_PREFIX,
    POLICY_KEY,
    ConfigRecord,
    ConfigSeen,
    decoded,
    encoded,
)

TEXT_BYTES_MAX = 1 << 18
WRITTEN_WITHIN_S = 30.0

app = typer.Typer(help="The cluster's file.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="The new file.")]


@app.command()
def check(*, file: FileArgument, is_json: JsonOption = False) -> None:
    """Every mistake in FILE, all at once; nothing is changed."""
    config = _accepted(file, file.absolute().parent)[0]
    said = warnings(config)
    if is_json:
        say_json({"is_valid": True, "notes": said})
        return
    say(f"{file}: no mistake")
    for each in said:
        say(f"note: {each}")


@app.command()
def apply(
    *,
    file: FileArgument,
    no_restart: Annotated[
        bool, typer.Option("--no-restart", help="Write the files only; restart them yourself.")
    ] = False,
    timeout_s: StepTimeoutOption = tasks.RESTART_WITHIN_S,
    config: ConfigOption = None,
    is_json: JsonOption = False,
) -> None:
    """Replace the cluster's file on every host by FILE, and restart what reads it, node by node.

    For settings of the database, durability, routers, timing, priorities and sites. Names,
    addresses, directories, programs and hooks are changed by hand, on a stopped cluster.
    """
    before, path = loaded(config), path_of(config)
    after, text = _accepted(file, before.directory)
    changed = changes(before, after)
    problems = refusals(before, after)
    if REMOVED in Redactor(()).text(text):
        problems.append(Problem("file", "", "a value looks like a secret: it does not go this way"))
    if problems:
        raise ConfigRejected(str(file), tuple(problems))
    shown = [str(each) for each in changed]
    progress, tell = Progress(), tell_nobody if is_json else _line
    for each in shown:
        tell(each)
    try:
        if changed:
            base = digest(path.read_text(encoding="utf-8"))
            work = _distribute(before, ConfigChange(text, base), tell)
            run_to_end(work)
            if not no_restart:
                run_to_end(_restart(before, changed, progress, timeout_s, tell))
    except PrimacyError as error:
        if is_json:
            ended = progress.answer(is_done=False, detail=str(error))
            say_json({"changed": shown, **as_json(ended)})
        raise
    detail = "nothing is different" if not changed else "written" if no_restart else "in force"
    if is_json:
        say_json({"changed": shown, **as_json(progress.answer(is_done=True, detail=detail))})
        return
    say(f"done: {detail}")


def _line(line: str) -> None:
    say(f"  {line}")


def _accepted(file: Path, directory: Path) -> tuple[Config, str]:
    """Raises `ConfigRejected` with every mistake. Relative paths begin at `directory`."""
    try:
        raw = file.read_bytes()
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigRejected(str(file), (Problem("file", "", str(reason)),)) from error
    if len(raw) > TEXT_BYTES_MAX:
        rule = f"longer than {TEXT_BYTES_MAX} bytes"
        raise ConfigRejected(str(file), (Problem("file", "", rule),))
    config, problems = parsed(text, directory)
    if config is None or problems:
        raise ConfigRejected(str(file), tuple(problems))
    return config, text


# ---- over the store


@dataclass(frozen=True, slots=True)
class ConfigChange:
    text: str
    base: str
    """The digest of the file that it was made from."""


async def _distribute(config: Config, change: ConfigChange, tell: Tell) -> None:
    async with store_of(config) as store:
        await distribute(store, config.members, change, SystemClock(), tell=tell)
        if (await store.range(POLICY_KEY)).items:
            tell("[durability] is passed over: what `primacy durability set` said stands above it")


async def distribute(
    store: Store,
    members: Sequence[NodeId],
    change: ConfigChange,
    clock: Clock,
    *,
    tell: Tell = tell_nobody,
    within_s: float = WRITTEN_WITHIN_S,
) -> None:
    """Write it into the store and wait until every host's file is the new one. `Conflict`: a host
    has another file, or refuses. `Unavailable`: one has not answered."""
    seen, found = await _seen(store), await store.range(CONFIG_KEY)
    others = [name for name in members if name not in seen or seen[name].file != change.base]
    if others:
        raise Conflict(
            f"not the same file, or not heard of: {', '.join(others)}",
            hint="Bring the cluster's file to these hosts, start them, and apply again.",
        )
    known = decoded(ConfigRecord, found.items[0].value) if found.items else None
    record = ConfigRecord(
        version=1 if known is None else known.version + 1,
        text=change.text,
        base=change.base,
        digest=digest(change.text),
        wall_s=clock.wall_s(),
    )
    mod = found.items[0].mod if found.items else Revision(0)
    put = Put(CONFIG_KEY, encoded(record))
    written = await store.txn(Txn(compares=(unchanged(CONFIG_KEY, mod),), then=(put,)))
    if not written.is_success:
        raise Conflict("somebody else applies a file now", hint="Look at it, and apply again.")
    await _until_written(store, members, record, within_s)
    tell(f"written on {', '.join(members)} (version {record.version})")


async def _until_written(
    store: Store, members: Sequence[NodeId], record: ConfigRecord, within_s: float
) -> None:
    missing: list[NodeId] = list(members)
    try:
        async with asyncio.timeout(within_s):
            found = await store.range(CONFIG_SEEN_PREFIX, is_prefix=True)
            async with store.watch(
                CONFIG_SEEN_PREFIX, is_prefix=True, from_revision=Revision(found.revision + 1)
            ) as batches:
                missing = await _missing(store, members, record)
                if not missing:
                    return
                async for _ in batches:
                    missing = await _missing(store, members, record)
                    if not missing:
                        return
    except TimeoutError:
        raise Unavailable(
            f"not written within {within_s:.0f} s on {', '.join(missing)}",
            hint="Nothing was restarted. Their logs say why; apply the old file to go back.",
        ) from None


async def _missing(store: Store, members: Sequence[NodeId], record: ConfigRecord) -> list[NodeId]:
    """Whose file is not the new one yet. `Conflict` where one refuses."""
    seen = await _seen(store)
    refused = [f"{name}: {seen[name].problem}" for name in members if seen[name].problem]
    if refused:
        raise Conflict(
            f"refused by {'; '.join(refused)}",
            hint="Nothing was restarted. Correct it there, or apply the old file to go back.",
        )
    return [name for name in members if seen[name].file != record.digest]


async def _seen(store: Store) -> dict[NodeId, ConfigSeen]:
    found = await store.range(CONFIG_SEEN_PREFIX, is_prefix=True)
    told = [decoded(ConfigSeen, item.value) for item in found.items]
    return {each.node: each for each in told}


async def _restart(
    config: Config, changed: list[Changed], progress: Progress, timeout_s: float, tell: Tell
) -> None:
    parts = rolling.parts_of(databases=needs_server_restart(changed), agents=True)
    async with store_of(config) as store:
        desk = Desk(store, roster(config), SystemClock())
        await rolling.restart(desk, parts=parts, progress=progress, timeout_s=timeout_s, tell=tell)
