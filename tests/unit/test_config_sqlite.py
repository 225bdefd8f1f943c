"""A cluster of the SQLite engine: what its file may say, and what each value becomes."""

import tomllib
from pathlib import Path

import pytest

from primacy.config import Config, parse, warnings
from primacy.config.changes import changes, needs_server_restart, refusals

HEAD = '[cluster]\nname = "shop"\nengine = "sqlite"\ninsecure = true\n'


def file(*, nodes: int = 3, more: str = "") -> str:
    hosts = "".join(f'[nodes.n{each}]\nhost = "10.0.0.{each}"\n' for each in range(1, nodes + 1))
    return f"{HEAD}{more}\n{hosts}"


def mistakes(text: str) -> dict[str, str]:
    _, problems = parse(tomllib.loads(text), Path("/etc/primacy"))
    return {each.key: f"{each.value}: {each.rule}" for each in problems}


def accepted(text: str) -> Config:
    config, problems = parse(tomllib.loads(text), Path("/etc/primacy"))
    assert problems == []
    assert config is not None
    return config


def test_the_defaults_need_no_section() -> None:
    config = accepted(file())
    assert (config.sqlite.database, config.sqlite.logging) == ("db", "row")
    assert config.users_path is None
    assert config.ports("n1") == {
        "peer_port": 7101,
        "store_port": 7102,
        "api_port": 7104,
        "clone_port": 7103,
        "pull_port": 7105,
        "database_port": 3306,
        "rw_port": 3307,
        "ro_port": 3308,
        "peer_router_port": 3309,
    }
    assert str(config.node("n2").pull) == "10.0.0.2:7105"


ACKS = {
    "none": ("0", 3, 0),
    "one": ("1", 3, 1),
    "a quorum of three": ('"quorum"', 3, 1),
    "a quorum of four": ('"quorum"', 4, 2),
    "a quorum of five": ('"quorum"', 5, 2),
    "all of three": ('"all"', 3, 2),
    "as many as there are replicas": ("8", 9, 8),
}


@pytest.mark.parametrize(("given", "nodes", "number"), ACKS.values(), ids=ACKS)
def test_acks_become_a_number(given: str, nodes: int, number: int) -> None:
    config = accepted(file(nodes=nodes, more=f"[durability]\nacks = {given}"))
    assert config.acks == number


def test_an_acknowledgement_may_wait_for_the_applier() -> None:
    assert accepted(file(more='[durability]\nack_on = "applied"')).durability.ack_on == "applied"


WRONG = {
    "more acknowledgements than replicas": (
        file(more="[durability]\nacks = 3"),
        "durability.acks",
        "3: 3 data nodes have 2 replicas",
    ),
    "a quorum of one": (
        file(nodes=1, more='[durability]\nacks = "quorum"'),
        "durability.acks",
        "no replica that could acknowledge",
    ),
    "a section of the other engine": (
        file(more="[mariadb]\ninnodb_buffer_pool_mb = 64"),
        "mariadb",
        "of engine mariadb, and cluster.engine is 'sqlite'",
    ),
    "its own section under the other engine": (
        file(more='[sqlite]\nlogging = "mixed"').replace('"sqlite"', '"mariadb"'),
        "sqlite",
        "of engine sqlite, and cluster.engine is 'mariadb'",
    ),
    "its own door under the other engine": (
        file().replace('"sqlite"', '"mariadb"') + "pull_port = 7000\n",
        "nodes.n3.pull_port",
        "7000: mariadb has no such door",
    ),
    "two doors on one port": (
        file() + "pull_port = 7103\n",
        "nodes.n3.pull_port",
        "10.0.0.3:7103 is nodes.n3.clone_port already",
    ),
    "a logging mode that there is not": (
        file(more='[sqlite]\nlogging = "rows"'),
        "sqlite.logging",
        "'row', 'statement' or 'mixed'",
    ),
    "a name that is no file's": (
        file(more='[sqlite]\ndatabase = "../db"'),
        "sqlite.database",
        "lower-case letters, digits, - and _",
    ),
    "an idle limit that is never reached": (
        file(more="[sqlite]\ntransaction_idle_s = 31"),
        "sqlite.transaction_idle_s",
        "31.0: more than sqlite.transaction_total_s, 30.0",
    ),
    "a misspelt key": (
        file(more="[sqlite]\nuser_file = 'x'"),
        "sqlite.user_file",
        "did you mean users_file?",
    ),
    "no reader": (file(more="[sqlite]\nreaders = 0"), "sqlite.readers", "greater than or equal"),
}


@pytest.mark.parametrize(("text", "key", "rule"), WRONG.values(), ids=WRONG)
def test_a_mistake_names_key_value_and_rule(text: str, key: str, rule: str) -> None:
    assert rule in mistakes(text)[key]


def test_several_mistakes_come_together() -> None:
    found = mistakes(
        file(more='[durability]\nacks = 9\n[sqlite]\nreaders = 99\n[mariadb]\nuser = "x"')
    )
    assert {"durability.acks", "sqlite.readers", "mariadb"} <= set(found)


def test_a_file_of_mariadb_on_one_host_needs_no_pull_port() -> None:
    ports = ("peer", "store", "clone", "api", "database", "rw", "ro", "peer_router")
    text = '[cluster]\nname = "old"\nengine = "mariadb"\n'
    for number in range(3):
        text += f'[nodes.n{number}]\nhost = "127.0.0.1"\n'
        text += "".join(f"{key}_port = {7100 + 10 * number + i}\n" for i, key in enumerate(ports))
    accepted(text)


WARNINGS = {
    "open doors": ("", "no sqlite.users_file: whoever reaches a door of n1, n2, n3"),
    "all must be up": ('[durability]\nacks = "all"', "acks = 2 of 2 replicas: while any one"),
}


@pytest.mark.parametrize(("more", "said"), WARNINGS.values(), ids=WARNINGS)
def test_what_will_surprise_somebody_is_said(more: str, said: str) -> None:
    assert any(said in each for each in warnings(accepted(file(more=more))))


def test_with_users_nobody_is_warned_of_open_doors() -> None:
    config = accepted(file(more='[sqlite]\nusers_file = "primacy.users"'))
    assert config.users_path == Path("/etc/primacy/primacy.users")
    assert not any("users_file" in each for each in warnings(config))


CHANGED = {
    "another mode of logging": ('logging = "mixed"', True, True),
    "a limit": ("statement_s = 60.0", True, True),
    "the pace of a copy": ("clone_mb_s = 10", True, False),
    "another database": ('database = "other"', False, True),
    "another file of users": ('users_file = "other"', False, True),
}


@pytest.mark.parametrize(("line", "is_taken_over", "needs_server"), CHANGED.values(), ids=CHANGED)
def test_a_running_cluster_takes_over_what_moves_nothing(
    line: str, *, is_taken_over: bool, needs_server: bool
) -> None:
    before, after = accepted(file()), accepted(file(more=f"[sqlite]\n{line}"))
    assert (refusals(before, after) == []) is is_taken_over
    assert needs_server_restart(changes(before, after)) is needs_server
