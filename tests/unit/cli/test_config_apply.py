"""A file goes to every host, or to none: the keepers of three hosts against the memory store."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from primacy.cli.config_keeper import ConfigKeeper, take_over
from primacy.cli.configuring import ConfigChange, distribute
from primacy.cli.main import exit_code_of
from primacy.clock import SystemClock
from primacy.config.changes import digest
from primacy.coordination.memory import MemoryStore
from primacy.errors import Conflict, Unavailable
from primacy.model import NodeId
from primacy.replication.records import (
    CONFIG_KEY,
    CONFIG_SEEN_PREFIX,
    ConfigRecord,
    ConfigSeen,
    decoded,
)
from primacy.telemetry import Event

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
NODES = (A, B, C)
WITHIN_S = 20.0
FILE = """
[cluster]
name = "shop"
engine = "mariadb"
[nodes.a]
host = "127.0.0.1"
[nodes.b]
host = "127.0.0.2"
[nodes.c]
host = "127.0.0.3"
"""
NEW = FILE + "priority = 5\n"
CHANGE = ConfigChange(NEW, digest(FILE))


def record(text: str, base: str = FILE, version: int = 1) -> ConfigRecord:
    return ConfigRecord(version=version, text=text, base=digest(base), digest=digest(text))


class Hosts:
    """Three, each with its own file."""

    def __init__(self, root: Path) -> None:
        self.clock = SystemClock()
        self.store = MemoryStore(self.clock)
        self.events: list[Event] = []
        self.paths = {node: root / node / "primacy.toml" for node in NODES}
        for path in self.paths.values():
            path.parent.mkdir()
            path.write_text(FILE)
            path.chmod(0o640)

    def texts(self) -> set[str]:
        return {path.read_text() for path in self.paths.values()}


def story(hosts: Hosts, tell: Callable[[], Awaitable[None]], *nodes: NodeId) -> None:
    """With keepers at work on these nodes (all, if none is named)."""

    async def told() -> None:
        loop = asyncio.get_running_loop()
        keepers = [
            ConfigKeeper(
                hosts.paths[node],
                node,
                f"life-{node}",
                store=hosts.store,
                clock=hosts.clock,
                events=hosts.events.append,
            )
            for node in nodes or NODES
        ]
        running = [loop.create_task(each.run()) for each in keepers]
        try:
            async with asyncio.timeout(WITHIN_S):
                while len(await seen(hosts)) < len(running):
                    await asyncio.sleep(0.005)
                await tell()
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    asyncio.run(told())


async def seen(hosts: Hosts) -> dict[NodeId, ConfigSeen]:
    found = await hosts.store.range(CONFIG_SEEN_PREFIX, is_prefix=True)
    return {each.node: each for each in (decoded(ConfigSeen, i.value) for i in found.items)}


def test_every_host_has_the_new_file_and_the_old_one_beside_it(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)

    async def tell() -> None:
        await distribute(hosts.store, NODES, CHANGE, hosts.clock)
        assert {each.file for each in (await seen(hosts)).values()} == {digest(NEW)}
        assert {each.running for each in (await seen(hosts)).values()} == {digest(FILE)}

    story(hosts, tell)
    assert hosts.texts() == {NEW}
    for path in hosts.paths.values():
        assert path.with_name("primacy.toml.previous").read_text() == FILE
        assert path.stat().st_mode & 0o777 == 0o640
        assert {each.name for each in path.parent.iterdir()} == {
            "primacy.toml",
            "primacy.toml.previous",
        }
    assert [each.name for each in hosts.events] == ["config-applied"] * 3


def test_and_the_way_back(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)

    async def tell() -> None:
        await distribute(hosts.store, NODES, CHANGE, hosts.clock)
        await distribute(hosts.store, NODES, ConfigChange(FILE, digest(NEW)), hosts.clock)
        found = (await hosts.store.range(CONFIG_KEY)).items[0]
        assert decoded(ConfigRecord, found.value).version == 2

    story(hosts, tell)
    assert hosts.texts() == {FILE}


def test_a_host_with_another_file_stops_it_before_anything_is_written(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)
    hosts.paths[B].write_text(FILE + "# mine\n")

    async def tell() -> None:
        with pytest.raises(Conflict, match="not the same file, or not heard of: b"):
            await distribute(hosts.store, NODES, CHANGE, hosts.clock)

    story(hosts, tell)
    assert NEW not in hosts.texts()


def test_a_host_that_was_never_heard_of_stops_it_too(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)

    async def tell() -> None:
        with pytest.raises(Conflict, match="not heard of: c"):
            await distribute(hosts.store, NODES, CHANGE, hosts.clock)

    story(hosts, tell, A, B)
    assert hosts.texts() == {FILE}


def test_a_host_that_is_edited_meanwhile_refuses_and_says_so(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)

    async def tell() -> None:
        hosts.paths[C].write_text(FILE + "# mine\n")
        with pytest.raises(Conflict, match=r"refused by c: .* is not the file"):
            await distribute(hosts.store, NODES, CHANGE, hosts.clock)

    story(hosts, tell)
    assert hosts.paths[C].read_text() == FILE + "# mine\n"


def test_a_host_that_is_silent_is_named(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)

    async def nothing() -> None:
        return

    async def tell() -> None:
        with pytest.raises(Unavailable, match="not written within 0 s on"):
            await distribute(hosts.store, NODES, CHANGE, hosts.clock, within_s=0.05)

    story(hosts, nothing)  # All have spoken, and then their agents end.
    asyncio.run(tell())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cluster", "not TOML"),
        (FILE.replace('name = "shop"', "name = 3"), "cluster.name"),
        (FILE.replace('"127.0.0.3"', '"127.0.0.9"'), "nodes.c.host"),
        (FILE + '[hooks]\nrole_changed = ["/bin/sh"]\n', "hooks.role_changed"),
    ],
    ids=["not TOML", "a mistake", "an address", "a command"],
)
def test_a_keeper_trusts_nobody(tmp_path: Path, text: str, said: str) -> None:
    """Whatever stands in the store passes the same rules on each host."""
    path = tmp_path / "primacy.toml"
    path.write_text(FILE)
    is_new, problem = take_over(path, record(text))
    assert not is_new
    assert said in problem
    assert path.read_text() == FILE


def test_a_text_that_is_not_what_its_digest_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "primacy.toml"
    path.write_text(FILE)
    lie = ConfigRecord(version=1, text=NEW, base=digest(FILE), digest="0" * 16)
    assert take_over(path, lie)[0] is False
    assert path.read_text() == FILE


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    path = tmp_path / "primacy.toml"
    path.write_text(FILE)
    assert take_over(path, record(NEW)) == (True, "")
    assert take_over(path, record(NEW)) == (False, "")


def test_nodes_that_share_one_file_do_not_take_it_from_each_other(tmp_path: Path) -> None:
    """All on one machine: each is told at once, and only one finds something to do."""
    path = tmp_path / "primacy.toml"
    for _ in range(20):
        path.write_text(FILE)
        with ThreadPoolExecutor(len(NODES)) as keepers:
            told = list(keepers.map(lambda _: take_over(path, record(NEW)), NODES))
        assert sorted(told) == [(False, ""), (False, ""), (True, "")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "primacy.toml").write_text(FILE)
    secret = tmp_path / "primacy.secret"
    secret.touch(0o600)
    secret.write_text("0f" * 32)
    return tmp_path


def command(folder: Path, name: str, text: str) -> int:
    (folder / "new.toml").write_text(text)
    arguments = ["config", name, str(folder / "new.toml")]
    more = ["--config", str(folder / "primacy.toml")] if name == "apply" else []
    return exit_code_of([*arguments, *more])


def test_every_mistake_and_every_refusal_is_said_before_anything_is_sent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(folder, "apply", FILE.replace("engine", "engin")) == 2
    assert "did you mean engine" in capsys.readouterr().err
    wrong = FILE.replace('"127.0.0.3"', '"127.0.0.9"').replace('"shop"', '"store"')
    wrong += '[mariadb.settings]\nssl_passphrase = "hush-hush"\n'
    assert command(folder, "apply", wrong) == 2
    said = capsys.readouterr().err
    for expected in ("nodes.c.host", "cluster.name", "looks like a secret"):
        assert expected in said


def test_a_file_without_a_difference_is_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(folder, "apply", FILE) == 0
    assert "nothing is different" in capsys.readouterr().out


def test_check_only_reads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "check", FILE) == 0
    assert "no mistake" in capsys.readouterr().out
    assert command(folder, "check", FILE.replace('"mariadb"', '"oracle"')) == 2
