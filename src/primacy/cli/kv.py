"""`primacy kv`: the store's own keys, for people and scripts.

Keys below `cluster/` belong to the agents: they may be read, and are not written from here.
"""

from typing import Annotated

import typer

from primacy.cli.format import Json, complain, say, say_json
from primacy.cli.options import ConfigOption, JsonOption, loaded, run_to_end
from primacy.cli.session import store_of
from primacy.config import Config
from primacy.coordination.api import (
    Delete,
    Done,
    KeyValue,
    Put,
    RangeResult,
    Txn,
    TxnResult,
)
from primacy.errors import Rejected
from primacy.model import Revision
from primacy.replication.records import PREFIX

app = typer.Typer(help="Read and write the store's keys.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(help="The key.")]


@app.command()
def get(*, key: KeyArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print a key's value. Exits with 1 where there is no such key."""
    found = run_to_end(_range(loaded(config), key, is_prefix=False))
    if not found.items:
        if as_json:
            say_json(None)
        complain(f"there is no key {key}")
        raise typer.Exit(1)
    item = found.items[0]
    if as_json:
        say_json(shown(item))
    else:
        say(item.value.decode(errors="backslashreplace"))


@app.command(name="list")
def list_(
    *,
    prefix: Annotated[str, typer.Argument(help="All keys that begin so; none: all keys.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the keys below a prefix, in order."""
    found = run_to_end(_range(loaded(config), prefix, is_prefix=True))
    if as_json:
        say_json({"revision": found.revision, "items": [shown(each) for each in found.items]})
        return
    for item in found.items:
        say(item.key)
    if found.is_cut:
        complain(f"only the first {len(found.items)} keys are shown")


@app.command()
def put(
    *,
    key: KeyArgument,
    value: Annotated[str, typer.Argument(help="The value, as text.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a key."""
    _check_free(key)
    result = run_to_end(_txn(loaded(config), Txn(then=(Put(key, value.encode()),))))
    if as_json:
        say_json({"revision": result.revision})
    else:
        say(f"revision {result.revision}")


@app.command()
def delete(*, key: KeyArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Remove a key. Removing one that is not there is no error."""
    _check_free(key)
    result = run_to_end(_txn(loaded(config), Txn(then=(Delete(key),))))
    count = sum(each.count for each in result.results if isinstance(each, Done))
    if as_json:
        say_json({"revision": result.revision, "count": count})
    else:
        say("removed" if count else "there was no such key")


@app.command()
def watch(
    *,
    prefix: Annotated[str, typer.Argument(help="Changes of all keys that begin so.")],
    from_revision: Annotated[int, typer.Option(help="Begin there instead of now; 0: now.")] = 0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print each change as it happens, until Ctrl-C."""
    run_to_end(_watch(loaded(config), prefix, Revision(from_revision), is_json=as_json))


def shown(item: KeyValue) -> dict[str, Json]:
    """A key for programs. A value that is no text is shown with backslashes."""
    return {
        "key": item.key,
        "value": item.value.decode(errors="backslashreplace"),
        "create": item.create,
        "mod": item.mod,
        "version": item.version,
        "lease": item.lease,
    }


async def _watch(config: Config, prefix: str, start: Revision, *, is_json: bool) -> None:
    async with store_of(config) as store:
        if start == 0:
            now = await store.range(prefix, is_prefix=True)
            start = Revision(now.revision + 1)
        async with store.watch(prefix, is_prefix=True, from_revision=start) as batches:
            async for batch in batches:
                for change in batch.changes:
                    after = None if change.after is None else shown(change.after)
                    if is_json:
                        say_json(
                            {"revision": batch.revision, "key": change.key, "after": after},
                            is_compact=True,
                        )
                    elif after is None:
                        say(f"{batch.revision} {change.key} removed")
                    else:
                        say(f"{batch.revision} {change.key} = {after['value']}")


async def _range(config: Config, key: str, *, is_prefix: bool) -> RangeResult:
    async with store_of(config) as store:
        return await store.range(key, is_prefix=is_prefix)


async def _txn(config: Config, txn: Txn) -> TxnResult:
    async with store_of(config) as store:
        return await store.txn(txn)


def _check_free(key: str) -> None:
    if key.startswith(PREFIX):
        raise Rejected(
            f"{key} belongs to the agents, which decide by it who may write",
            hint="Use `switchover`, `failover`, `pause` or `resume`.",
        )
