"""One file gives one frozen value, or every mistake at once."""

import tomllib
from pathlib import Path

import pytest

from primacy.config import (
    CONFIG_VARIABLE,
    Config,
    ConfigRejected,
    load,
    parse,
    path_of,
    warnings,
)

THREE_NODES = """
[cluster]
name = "shop"
engine = "mariadb"
insecure = true

[nodes.a]
host = "10.0.0.1"
[nodes.b]
host = "10.0.0.2"
[nodes.c]
host = "10.0.0.3"
"""


def mistakes(text: str) -> dict[str, str]:
    """Key -> value and rule."""
    _, problems = parse(tomllib.loads(text), Path("/etc/primacy"))
    return {each.key: f"{each.value}: {each.rule}" for each in problems}


def accepted(text: str) -> Config:
    config, problems = parse(tomllib.loads(text), Path("/etc/primacy"))
    assert config is not None
    assert problems == []
    return config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "primacy.toml").write_text(THREE_NODES)
    secret = tmp_path / "primacy.secret"
    secret.write_text("0f" * 32 + "\n")
    secret.chmod(0o600)
    return tmp_path


def test_defaults_are_right_for_three_hosts() -> None:
    config = accepted(THREE_NODES)
    assert config.members == config.data_nodes == ("a", "b", "c")
    assert config.lease_ttl_s == 3.0
    assert (config.durability.acks, config.durability.on_timeout) == (1, "block")
    assert str(config.node("b").peer) == "10.0.0.2:7101"
    assert config.state_dir("b") == Path("/var/lib/primacy/shop/b")
    assert config.secret_path == Path("/etc/primacy/primacy.secret")


def test_profile_sets_the_lease_and_an_own_figure_overrides_it() -> None:
    fast = THREE_NODES.replace("[nodes.a]", 'profile = "fast"\n[nodes.a]')
    assert accepted(fast).lease_ttl_s == 1.0
    own = THREE_NODES.replace("[nodes.a]", 'profile = "fast"\nlease_ttl_s = 2\n[nodes.a]')
    assert accepted(own).lease_ttl_s == 2.0


WRONG_KEYS = {
    "unknown key": (
        "[router]\nhold_sec = 1",
        "router.hold_sec",
        "1: unknown key; did you mean hold_s?",
    ),
    "unknown section": ("[extra]\nx = 1", "extra", "known here: api, cluster, durability"),
    "lease below the floor": (
        "lease_ttl_s = 0.5",
        "cluster.lease_ttl_s",
        "0.5: greater than or equal to 1",
    ),
    "lease that is no number": ('lease_ttl_s = "3"', "cluster.lease_ttl_s", "valid number"),
    "unknown profile": ('profile = "slow"', "cluster.profile", "'default' or 'fast'"),
    "acks that the engine does not keep": (
        "[durability]\nacks = 2",
        "durability.acks",
        "2: mariadb keeps 0 or 1; for any number: sqlite",
    ),
    "acks that is no policy": (
        '[durability]\nacks = "most"',
        "durability.acks",
        "'most': must be a whole number >= 0, 'quorum' or 'all'",
    ),
    "negative acks": ("[durability]\nacks = -1", "durability.acks", "-1: must be a whole number"),
    "applied acknowledgements": (
        '[durability]\nack_on = "applied"',
        "durability.ack_on",
        "mariadb keeps received",
    ),
    "two nodes with one address": (
        '[nodes.d]\nhost = "10.0.0.1"\nstate_dir = "d"',
        "nodes.d.peer_port",
        "7101: 10.0.0.1:7101 is nodes.a.peer_port already",
    ),
    "one port twice on a node": (
        '[nodes.d]\nhost = "10.0.0.9"\nstore_port = 7101',
        "nodes.d.store_port",
        "7101: 10.0.0.9:7101 is nodes.d.peer_port already",
    ),
    "no port": ('[nodes.d]\nhost = "10.0.0.9"\nrw_port = 70000', "nodes.d.rw_port", "65535"),
    "node without host": ("[nodes.d]\npriority = 1", "nodes.d.host", "is required"),
    "a name that is no name": (
        '[nodes."d e"]\nhost = "10.0.0.9"',
        "nodes.d e",
        "digits and hyphens",
    ),
    "a setting that safety rests on": (
        "[mariadb.settings]\nsync-binlog = 0",
        "mariadb.settings.sync-binlog",
        "primacy sets this one itself",
    ),
    "a setting of semi-synchronous replication": (
        "[mariadb.settings]\nrpl_semi_sync_master_timeout = 10",
        "mariadb.settings.rpl_semi_sync_master_timeout",
        "primacy sets this one itself",
    ),
}


@pytest.mark.parametrize(("addition", "key", "rule"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_a_mistake_names_key_value_and_rule(addition: str, key: str, rule: str) -> None:
    at = "\n[nodes.a]" if not addition.startswith("[") else ""
    text = THREE_NODES.replace(at, f"{addition}\n{at}") if at else f"{THREE_NODES}\n{addition}"
    found = mistakes(text)
    assert rule in found[key]


def test_all_mistakes_are_reported_together() -> None:
    found = mistakes("""
        colour = "red"
        [cluster]
        name = "Shop!"
        engine = "postgresql"
        lease_ttl_s = 0.2
        [durability]
        acks = "some"
        ack_on = "applied"
        [nodes.a]
        host = "10.0.0.1"
        [nodes.b]
        host = "10.0.0.1"
        [nodes.c]
    """)
    assert {
        "colour",
        "cluster.name",
        "cluster.engine",
        "cluster.lease_ttl_s",
        "cluster.insecure",
        "durability.acks",
        "nodes.b.peer_port",
        "nodes.c.host",
    } <= set(found)
    assert "It is planned" in found["cluster.engine"]


def test_doors_beyond_loopback_are_refused_without_the_word() -> None:
    text = THREE_NODES.replace("insecure = true", "")
    assert "a, b, c would listen beyond loopback" in mistakes(text)["cluster.insecure"]


def test_three_nodes_on_loopback_need_no_word_but_ports_of_their_own() -> None:
    text = THREE_NODES.replace("insecure = true", "")
    for last in "123":
        text = text.replace(f"10.0.0.{last}", f"127.0.0.{last}")
    accepted(text)
    clash = text.replace("127.0.0.2", "localhost")
    assert "nodes.a.peer_port" in mistakes(clash)["nodes.b.peer_port"]


def test_a_wider_door_for_http_alone_needs_the_word_too() -> None:
    local = THREE_NODES.replace("insecure = true", "")
    for number in (1, 2, 3):
        local = local.replace(f"10.0.0.{number}", f"127.0.0.{number}")
    assert (
        "api.listen 0.0.0.0" in mistakes(f'{local}\n[api]\nlisten = "0.0.0.0"')["cluster.insecure"]
    )
    assert accepted(f'{local}\n[api]\nlisten = "0.0.0.0"\nenabled = false').api.enabled is False
    kept = accepted(f'{local}\n[api]\nlisten = "127.0.0.1"')
    assert str(kept.api_door("b")) == "127.0.0.1:7104"
    assert str(accepted(local).api_door("b")) == "127.0.0.2:7104"


def test_without_a_token_a_door_beyond_loopback_is_warned_of(folder: Path) -> None:
    assert any("no api.token_file" in each for each in warnings(accepted(THREE_NODES)))
    with_token = accepted(f'{THREE_NODES}\n[api]\ntoken_file = "token"')
    assert not any("api.token_file" in each for each in warnings(with_token))


TOKENS = {
    "missing": (None, 0o600, "No such file"),
    "open": ("0123456789abcdef", 0o640, "chmod 600"),
    "short": ("0123456789abcde", 0o600, "must be 16 to 512 characters"),
    "two words": ("0123456789 abcdef", 0o600, "without spaces"),
}


@pytest.mark.parametrize(("text", "mode", "rule"), TOKENS.values(), ids=TOKENS)
def test_a_token_that_cannot_be_used_is_refused(
    folder: Path, text: str | None, mode: int, rule: str
) -> None:
    if text is not None:
        (folder / "token").write_text(text)
        (folder / "token").chmod(mode)
    file = folder / "primacy.toml"
    file.write_text(f'{file.read_text()}\n[api]\ntoken_file = "token"\n')
    with pytest.raises(ConfigRejected, match=rule):
        load(file).api_token()


def test_a_token_is_read_without_its_line_end(folder: Path) -> None:
    (folder / "token").touch(0o600)
    (folder / "token").write_text("0123456789abcdef\n")
    file = folder / "primacy.toml"
    file.write_text(f'{file.read_text()}\n[api]\ntoken_file = "token"\n')
    assert load(file).api_token() == "0123456789abcdef"


def test_an_unknown_section_named_directory_is_refused() -> None:
    assert mistakes(f'directory = "/tmp"\n{THREE_NODES}')["directory"].endswith("unknown key")


def test_an_empty_file_says_what_is_required() -> None:
    assert {"cluster", "nodes"} <= set(mistakes(""))


def test_one_data_node_cannot_have_a_replica_that_acknowledges() -> None:
    text = '[cluster]\nname = "x"\nengine = "mariadb"\n[nodes.a]\nhost = "127.0.0.1"'
    assert "no replica" in mistakes(text)["durability.acks"]


def test_witnesses_alone_are_no_cluster() -> None:
    text = (
        '[cluster]\nname = "x"\nengine = "mariadb"\n[nodes.a]\nhost = "127.0.0.1"\ndatabase = false'
    )
    assert "every one is a witness" in mistakes(text)["nodes"]


def test_somebody_must_be_promotable() -> None:
    text = THREE_NODES.replace('"\n', '"\nnever_promote = true\n').replace(
        'name = "shop"\nnever_promote = true', 'name = "shop"'
    )
    text = text.replace('engine = "mariadb"\nnever_promote = true', 'engine = "mariadb"')
    assert "nobody could be primary" in mistakes(text)["nodes"]


def test_two_data_nodes_and_a_witness_are_allowed_and_warned_of() -> None:
    config = accepted(f"{THREE_NODES}database = false")
    assert config.data_nodes == ("a", "b")
    assert any("writes are blocked" in each for each in warnings(config))
    assert any("not encrypted" in each for each in warnings(config))


SITES = (
    THREE_NODES.replace('10.0.0.1"', '10.0.0.1"\nsite = "east"')
    .replace('10.0.0.2"', '10.0.0.2"\nsite = "west"')
    .replace("insecure = true", 'insecure = true\npreferred_site = "east"')
)


def test_the_nodes_of_the_preferred_site_are_preferred() -> None:
    assert accepted(SITES).preferred_nodes == ("a",)
    assert accepted(THREE_NODES).preferred_nodes == ()


def test_a_preferred_site_must_have_a_node_that_may_be_primary() -> None:
    nowhere = SITES.replace('preferred_site = "east"', 'preferred_site = "north"')
    assert "sites: east, west" in mistakes(nowhere)["cluster.preferred_site"]
    barred = SITES.replace('1"\nsite = "east"', '1"\nsite = "east"\nnever_promote = true')
    assert "sites: west" in mistakes(barred)["cluster.preferred_site"]
    shouted = SITES.replace('site = "west"', 'site = "West!"')
    assert "lower-case letters" in mistakes(shouted)["nodes.b.site"]


def test_a_return_needs_a_site_to_return_to() -> None:
    text = THREE_NODES.replace("insecure = true", "insecure = true\nreturn_to_preferred = true")
    assert "needs a preferred_site" in mistakes(text)["cluster.return_to_preferred"]


def test_a_node_that_is_never_promoted_leaves_two_and_is_warned_of() -> None:
    text = f"{THREE_NODES}never_promote = true"
    assert any("does not count" in each for each in warnings(accepted(text)))


def test_fewer_than_three_voters_and_an_even_number_are_warned_of() -> None:
    two = THREE_NODES.replace('[nodes.c]\nhost = "10.0.0.3"', "")
    assert any("nothing survives" in each for each in warnings(accepted(two)))
    four = f'{THREE_NODES}[nodes.d]\nhost = "10.0.0.4"'
    assert any("odd number" in each for each in warnings(accepted(four)))


def test_a_whole_file_is_loaded_with_its_secret(folder: Path) -> None:
    config = load(folder / "primacy.toml")
    assert config.secret() == b"\x0f" * 32


@pytest.mark.parametrize(
    ("content", "mode", "rule"),
    [("0f" * 32, 0o644, "others may read it"), ("0f" * 8, 0o600, "32 bytes")],
)
def test_a_secret_that_is_open_or_short_is_refused(
    folder: Path, content: str, mode: int, rule: str
) -> None:
    (folder / "primacy.secret").write_text(content)
    (folder / "primacy.secret").chmod(mode)
    with pytest.raises(ConfigRejected, match=rule):
        load(folder / "primacy.toml")


def test_a_missing_secret_is_reported_with_the_other_mistakes(folder: Path) -> None:
    (folder / "primacy.secret").unlink()
    text = THREE_NODES.replace("insecure = true", "insecure = false")
    (folder / "primacy.toml").write_text(text)
    with pytest.raises(ConfigRejected) as caught:
        load(folder / "primacy.toml")
    assert {each.key for each in caught.value.problems} == {
        "cluster.insecure",
        "cluster.secret_file",
    }


def test_a_missing_or_broken_file_is_one_mistake(folder: Path) -> None:
    with pytest.raises(ConfigRejected, match="primacy init"):
        load(folder / "absent.toml")
    (folder / "primacy.toml").write_text("[cluster\n")
    with pytest.raises(ConfigRejected, match="not TOML"):
        load(folder / "primacy.toml")


def test_an_unknown_node_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigRejected, match=r"--node = 'z': the file's nodes are a, b, c"):
        accepted(THREE_NODES).node("z")


def test_the_path_comes_from_the_command_line_then_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, "/etc/other.toml")
    assert path_of(None) == Path("/etc/other.toml")
    assert path_of(Path("mine.toml")) == Path("mine.toml")
    monkeypatch.delenv(CONFIG_VARIABLE)
    assert path_of(None) == Path("primacy.toml")
