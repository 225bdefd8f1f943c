"""What a running cluster takes over from a new file, and what it refuses: everything not named."""

import tomllib
from pathlib import Path

import pytest

from primacy.config import Config, parse
from primacy.config.changes import (
    ABSENT,
    changes,
    digest,
    needs_server_restart,
    refusals,
)

FILE = """
[cluster]
name = "shop"
engine = "mariadb"
[mariadb.settings]
max_connections = 200
[nodes.a]
host = "127.0.0.1"
[nodes.b]
host = "127.0.0.2"
[nodes.c]
host = "127.0.0.3"
"""


def config(text: str = FILE) -> Config:
    found, problems = parse(tomllib.loads(text), Path("/etc/primacy"))
    assert found is not None
    assert problems == []
    return found


def edited(old: str, new: str) -> Config:
    assert old in FILE
    return config(FILE.replace(old, new))


TAKEN_OVER = {
    "a server variable": ("max_connections = 200", "max_connections = 300"),
    "one more": ("max_connections = 200", "max_connections = 200\nwait_timeout = 60"),
    "one less": ("max_connections = 200", ""),
    "memory": ("[mariadb.settings]", "[mariadb]\ninnodb_buffer_pool_mb = 256\n[mariadb.settings]"),
    "durability": (
        "[mariadb.settings]",
        '[durability]\non_timeout = "degrade"\n[mariadb.settings]',
    ),
    "the router": ("[mariadb.settings]", "[router]\nhold_s = 3\n[mariadb.settings]"),
    "a shorter lease": ('engine = "mariadb"', 'engine = "mariadb"\nprofile = "fast"'),
    "weights": ('host = "127.0.0.1"', 'host = "127.0.0.1"\npriority = 5'),
    "a site": ('host = "127.0.0.2"', 'host = "127.0.0.2"\nsite = "east"'),
    "never": ('host = "127.0.0.2"', 'host = "127.0.0.2"\nnever_promote = true'),
}
REFUSED = {
    "an address": ('"127.0.0.3"', '"127.0.0.9"', "nodes.c.host"),
    "a port": ('host = "127.0.0.3"', 'host = "127.0.0.3"\nrw_port = 4000', "nodes.c.rw_port"),
    "a node": ("[nodes.c]", "[nodes.d]", "nodes.d.host"),
    "the name": ('name = "shop"', 'name = "store"', "cluster.name"),
    "a directory": ('name = "shop"', 'name = "shop"\nstate_dir = "/x"', "cluster.state_dir"),
    "a program": (
        "[mariadb.settings]",
        '[mariadb]\nserver = "/x"\n[mariadb.settings]',
        "mariadb.server",
    ),
    "a user": (
        "[mariadb.settings]",
        '[mariadb]\nuser = "root"\n[mariadb.settings]',
        "mariadb.user",
    ),
    "a hook": (
        "[mariadb.settings]",
        '[hooks]\nrole_changed = ["/x"]\n[mariadb.settings]',
        "hooks.role_changed",
    ),
    "a plugin": (
        "max_connections = 200",
        'plugin_load_add = "x"',
        "mariadb.settings.plugin_load_add",
    ),
    "an init file": ("max_connections = 200", 'init-file = "/x"', "mariadb.settings.init-file"),
    "a witness": ('host = "127.0.0.3"', 'host = "127.0.0.3"\ndatabase = false', "nodes.c.database"),
    "a much longer lease": (
        'engine = "mariadb"',
        'engine = "mariadb"\nlease_ttl_s = 10',
        "cluster.lease_ttl_s",
    ),
}


@pytest.mark.parametrize(("old", "new"), TAKEN_OVER.values(), ids=TAKEN_OVER)
def test_taken_over(old: str, new: str) -> None:
    assert refusals(config(), edited(old, new)) == []


@pytest.mark.parametrize(("old", "new", "key"), REFUSED.values(), ids=REFUSED)
def test_refused(old: str, new: str, key: str) -> None:
    assert key in [each.key for each in refusals(config(), edited(old, new))]


def test_every_refusal_is_said_at_once() -> None:
    text = FILE.replace('"127.0.0.3"', '"127.0.0.9"').replace('name = "shop"', 'name = "store"')
    assert {each.key for each in refusals(config(), config(text))} >= {
        "cluster.name",
        "nodes.c.host",
    }


def test_a_default_that_is_written_out_is_no_change() -> None:
    said = FILE.replace('engine = "mariadb"', 'engine = "mariadb"\nprofile = "default"')
    assert changes(config(), config(said)) == []


def test_what_changed_is_said_with_both_values() -> None:
    (found,) = changes(config(), edited("max_connections = 200", ""))
    assert (found.key, found.after) == ("mariadb.settings.max_connections", ABSENT)
    (found,) = changes(config(), edited("max_connections = 200", "max_connections = 300"))
    assert str(found) == "mariadb.settings.max_connections: 200 -> 300"


@pytest.mark.parametrize(
    ("old", "new", "needs"),
    [
        ("max_connections = 200", "max_connections = 300", True),
        ('host = "127.0.0.1"', 'host = "127.0.0.1"\npriority = 5', False),
        ("[mariadb.settings]", "[router]\nhold_s = 3\n[mariadb.settings]", False),
    ],
    ids=["a server variable", "a weight", "the router"],
)
def test_which_changes_need_a_new_start_of_the_server(old: str, new: str, needs: bool) -> None:  # noqa: FBT001 - a column of the table
    assert needs_server_restart(changes(config(), edited(old, new))) is needs


def test_a_digest_names_a_content() -> None:
    assert digest(FILE) == digest(FILE)
    assert digest(FILE) != digest(FILE + " ")
