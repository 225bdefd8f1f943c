"""A support bundle holds what helps, and no secret: not in a file, a name, a log or a setting."""

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.cli import report
from primacy.cli.redaction import REMOVED, SECRET_MIN, Redactor
from primacy.config import Config, load
from primacy.engines.mariadb.accounts import ADMIN, login, replication_account, write_secrets
from primacy.model import NodeId

SECRET = "0123456789abcdef" * 4
PASSWORD = "correct horse battery staple"

FILE = f"""
[cluster]
name = "shop"
engine = "mariadb"
state_dir = "state"
[mariadb.settings]
ssl_passphrase = "{PASSWORD}"
[nodes.a]
host = "127.0.0.1"
[nodes.b]
host = "127.0.0.2"
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "primacy.toml").write_text(FILE)
    secret = tmp_path / "primacy.secret"
    secret.touch(0o600)
    secret.write_text(SECRET + "\n")
    found = load(tmp_path / "primacy.toml")
    node = found.state_dir("a")
    (node / "guard").mkdir(parents=True)
    write_secrets(node / "secrets", found.secret(), NodeId("a"))
    (node / "secrets" / "backup.cnf").write_text("[client]\npassword=from-an-option-file\n")
    admin = login(found.secret(), ADMIN).password
    peer = login(found.secret(), replication_account(NodeId("b"))).password
    (node / "agent.log").write_text(f"decided reason=fine\nconnect with {admin}\n{SECRET}\n")
    (node / "server.log").write_text(
        f"CREATE USER 'x'@'%' IDENTIFIED BY '{PASSWORD}';\nlogin {peer} from-an-option-file\n"
    )
    (node / "guard" / "guard.log").write_text("killed at the deadline\n")
    return found


def bundle(config: Config, tmp_path: Path) -> dict[str, str]:
    target = tmp_path / "out.tar.gz"
    pieces = report.of_host(config, tmp_path / "primacy.toml")
    report.write(target, pieces, Redactor(report.secrets_of(config)))
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read().decode()
        return found


def test_no_secret_is_inside(config: Config, tmp_path: Path) -> None:
    files = bundle(config, tmp_path)
    everything = "\n".join([*files, *files.values()])
    for secret in (*report.secrets_of(config), PASSWORD, "from-an-option-file"):
        if len(secret) >= SECRET_MIN:
            assert secret not in everything


def test_what_helps_is_inside(config: Config, tmp_path: Path) -> None:
    files = bundle(config, tmp_path)
    assert {"out/primacy.toml", "out/versions.txt", "out/a/disk.txt", "out/a/page.txt"} <= set(
        files
    )
    assert "decided reason=fine" in files["out/a/agent.log"]
    assert files["out/a/guard/guard.log"] == "killed at the deadline\n"
    assert 'host = "127.0.0.2"' in files["out/primacy.toml"]
    assert f'ssl_passphrase = "{REMOVED}"' in files["out/primacy.toml"]
    assert "MemTotal" in files["out/host/proc/meminfo"]


def test_no_file_of_the_secrets_folder_is_inside(config: Config, tmp_path: Path) -> None:
    assert [name for name in bundle(config, tmp_path) if "secret" in name] == []


def test_of_a_log_only_the_end_is_taken(config: Config, tmp_path: Path) -> None:
    log = config.state_dir("a") / "agent.log"
    log.write_text("first\n" + "x" * report.TAIL_BYTES + "\nlast\n")
    told = bundle(config, tmp_path)["out/a/agent.log"]
    assert told.endswith("last\n")
    assert "first" not in told


KEYED = {
    "toml": ('password = "s3cr3t value"', f'password = "{REMOVED}"'),
    "option file": ("ssl-passphrase=hunter22", f'ssl-passphrase="{REMOVED}"'),
    "json": ('{"api_token": "abc", "x": 1}', f'{{"api_token": "{REMOVED}", "x": 1}}'),
    "sql": ("IDENTIFIED BY 'pw'", f"IDENTIFIED BY {REMOVED}"),
    "sql hash": ("IDENTIFIED BY PASSWORD '*AB'", f"IDENTIFIED BY PASSWORD {REMOVED}"),
    "url": ("mysql://u:pw@host/db", f"mysql://u:{REMOVED}@host/db"),
    "a file's name is no secret": ('secret_file = "p.secret"', 'secret_file = "p.secret"'),
    "a word in a sentence is no key": ("the secret is not here", "the secret is not here"),
}


@pytest.mark.parametrize(("given_text", "expected"), KEYED.values(), ids=KEYED)
def test_values_of_telling_keys(given_text: str, expected: str) -> None:
    assert Redactor(()).text(given_text) == expected


secret_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=SECRET_MIN)


@given(st.lists(secret_texts, min_size=1, max_size=4), st.lists(st.text(max_size=20), max_size=6))
def test_no_known_secret_survives_wherever_it_stands(secrets: list[str], around: list[str]) -> None:
    text = "".join(part + secrets[i % len(secrets)] for i, part in enumerate(around))
    cleaned = Redactor(secrets).text(text)
    kept = [each for each in secrets if each in cleaned and each not in REMOVED]
    assert kept == []
