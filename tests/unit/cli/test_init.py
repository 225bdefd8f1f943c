"""`primacy init` writes a file that the parser accepts, and says what comes next."""

import json
import stat
from pathlib import Path

import pytest

from primacy.cli.init import Wish, checked, next_steps, rendered
from primacy.cli.main import exit_code_of
from primacy.config import ConfigRejected, load
from primacy.engines.sqlite.scram import proof_of, signature_for, verifiers_in

THREE = ("--node", "a=10.0.0.1", "--node", "b=10.0.0.2", "--node", "c=10.0.0.3")


def init(folder: Path, *arguments: str) -> int:
    return exit_code_of(
        ["init", "--name", "shop", "--config", str(folder / "primacy.toml"), *arguments]
    )


def test_what_it_writes_can_be_loaded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path, *THREE, "--insecure") == 0
    config = load(tmp_path / "primacy.toml")
    assert config.members == ("a", "b", "c")
    secret = tmp_path / "primacy.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(config.secret()) == 32
    said = capfd.readouterr()
    assert "Copy primacy.toml and primacy.secret (mode 0600)" in said.out
    assert "10.0.0.1, 10.0.0.2, 10.0.0.3" in said.out
    assert "not encrypted" in said.err


def test_a_token_for_http_is_written_where_it_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, *THREE, "--insecure", "--token") == 0
    config = load(tmp_path / "primacy.toml")
    token = config.api_token()
    assert token is not None
    assert len(token) == 64
    assert stat.S_IMODE((tmp_path / "primacy.token").stat().st_mode) == 0o600
    said = capfd.readouterr()
    assert "Copy primacy.toml, primacy.secret and primacy.token (mode 0600)" in said.out
    assert token not in said.out + said.err
    assert "no api.token_file" not in said.err


def test_beyond_loopback_it_asks_for_the_word_and_writes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, *THREE) == 2
    assert "would listen beyond loopback" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_it_never_overwrites(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path, *THREE, "--insecure") == 0
    before = (tmp_path / "primacy.toml").read_bytes()
    assert init(tmp_path, "--node", "z=10.0.0.9", "--insecure") == 2
    assert "never overwritten" in capfd.readouterr().err
    assert (tmp_path / "primacy.toml").read_bytes() == before


def test_a_secret_that_stands_there_is_kept(tmp_path: Path) -> None:
    secret = tmp_path / "primacy.secret"
    secret.write_text("ab" * 32)
    secret.chmod(0o600)
    assert init(tmp_path, *THREE, "--insecure") == 0
    assert secret.read_text() == "ab" * 32


def test_all_mistakes_of_the_command_line_come_together(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, "--node", "a=10.0.0.1", "--node", "b", "--witness", "=x") == 2
    said = capfd.readouterr().err
    assert "--node = 'b'" in said
    assert "--witness = '=x'" in said


def test_json_names_the_files_and_the_steps(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, *THREE, "--insecure", "--json") == 0
    said = json.loads(capfd.readouterr().out)
    assert said["config"] == str(tmp_path / "primacy.toml")
    assert said["is_new_secret"] is True
    assert any("primacy run --node a" in each for each in said["next"])


def test_two_data_nodes_and_a_witness_are_warned_of(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = ("--node", "a=10.0.0.1", "--node", "b=10.0.0.2", "--witness", "w=10.0.0.3")
    assert init(tmp_path, *nodes, "--insecure") == 0
    assert "two data nodes" in capfd.readouterr().err
    assert load(tmp_path / "primacy.toml").data_nodes == ("a", "b")


def test_nodes_on_one_machine_get_ports_of_their_own() -> None:
    nodes = (("a", "127.0.0.1"), ("b", "127.0.0.1"), ("c", "127.0.0.1"))
    config = checked(rendered(Wish(name="x", engine="mariadb", nodes=nodes)), Path("/etc"))
    assert [config.node(each).rw_port for each in "abc"] == [3307, 3317, 3327]
    assert not any("Copy" in each for each in next_steps(config, Path("/etc/primacy.toml")))


def test_odd_text_is_refused_by_rule_and_never_breaks_the_file() -> None:
    wish = Wish(name='x"\n[nodes.q]', engine="mariadb", nodes=(("a b", "127.0.0.1"),))
    with pytest.raises(ConfigRejected) as caught:
        checked(rendered(wish), Path("/etc"))
    assert {each.key for each in caught.value.problems} >= {"cluster.name", "nodes.a b"}


def test_a_user_of_sqlite_gets_a_password_that_proves_him(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, *THREE, "--insecure", "--engine", "sqlite", "--user", "app") == 0
    config = load(tmp_path / "primacy.toml")
    assert config.users_path == tmp_path / "primacy.users"
    password = (tmp_path / "app.password").read_text().strip()
    for name in ("primacy.users", "app.password"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    users = verifiers_in(config.users_path.read_text(), source="users")
    verifier = users["app"]
    proof, signature = proof_of(
        password, salt=verifier.salt, iterations=verifier.iterations, said=b"said"
    )
    assert signature_for(verifier, proof, said=b"said") == signature
    said = capfd.readouterr()
    assert "Copy primacy.toml, primacy.secret and primacy.users (mode 0600)" in said.out
    assert "sql --config primacy.toml --user app --password-file app.password`" in said.out
    assert password not in said.out + said.err
    assert "no sqlite.users_file" not in said.err


WRONG_USERS = {
    "an engine that has its own": ("mariadb", "app", "users are made in SQL"),
    "no name of a file": ("sqlite", "../app", "it names a file, too"),
    "a file that is there": ("sqlite", "old", "old.password exists and is never overwritten"),
    "an engine that is unknown": ("oracle", "app", "this version has: mariadb, sqlite"),
}


@pytest.mark.parametrize(("engine", "user", "said"), WRONG_USERS.values(), ids=WRONG_USERS)
def test_a_user_that_cannot_be_made_is_refused_and_nothing_is_written(
    engine: str, user: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.password").write_text("kept")
    code = init(tmp_path, *THREE, "--insecure", "--engine", engine, "--user", user)
    assert code == 2
    assert said in capfd.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["old.password"]


def test_a_quorum_is_written_as_the_word(tmp_path: Path) -> None:
    assert init(tmp_path, *THREE, "--insecure", "--engine", "sqlite", "--acks", "quorum") == 0
    config = load(tmp_path / "primacy.toml")
    assert (config.durability.acks, config.acks) == ("quorum", 1)


def test_nodes_of_sqlite_on_one_machine_have_doors_of_their_own(tmp_path: Path) -> None:
    local = ("--node", "a=127.0.0.1", "--node", "b=127.0.0.1", "--witness", "w=127.0.0.1")
    assert init(tmp_path, *local, "--engine", "sqlite") == 0
    config = load(tmp_path / "primacy.toml")
    assert config.ports("b")["pull_port"] == 7115
    assert "pull_port" not in config.ports("w")


def test_a_single_node_waits_for_nobody_and_is_warned_of(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, "--node", "a=127.0.0.1") == 0
    config = load(tmp_path / "primacy.toml")
    assert (config.cluster.engine, config.acks) == ("sqlite", 0)
    said = capfd.readouterr().err
    assert "nothing survives the loss of one" in said
    assert "acks = 0" in said
