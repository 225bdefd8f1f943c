"""What the commands do differently for each engine; one engine needs nothing of another."""

import subprocess
import sys
from pathlib import Path

import pytest

from primacy.cli import kit
from primacy.cli.kits.sqlite import SqliteKit, library_problems, sqlite_settings, users_problems
from primacy.cli.users import user_line
from primacy.config import ENGINES, Config, Problem, parse
from primacy.engines.sqlite.storage.connection import Logging
from primacy.errors import Rejected
from primacy.model import Address, NodeId
from primacy.replication.pull.acks import AckOn

A, B = NodeId("a"), NodeId("b")


def config(directory: Path, engine: str = "sqlite", **sections: dict[str, object]) -> Config:
    (directory / "primacy.secret").write_text("00" * 32)
    (directory / "primacy.secret").chmod(0o600)
    hosts = {"a": "10.1.2.3", "b": "fd00::4", "c": "10.1.2.5"}
    cluster = {"name": "shop", "engine": engine, "insecure": True, "state_dir": "s"}
    found, problems = parse(
        {
            "cluster": {**cluster, **sections.pop("cluster", {})},
            "nodes": {name: {"host": host} for name, host in hosts.items()},
            **sections,
        },
        directory,
    )
    assert problems == []
    assert found is not None
    return found


def test_every_engine_of_the_configuration_has_a_kit() -> None:
    assert set(kit.KITS) == set(ENGINES)


WITHOUT = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from primacy.cli.kit import KITS
from primacy.cli.main import application
import primacy.cli.agent, primacy.cli.assemble
KITS[{engine!r}]()
application("run"), application("router"), application("report"), application("service")
print(*[each for each in sys.modules if each.startswith("primacy.engines.")])
"""


@pytest.mark.parametrize(
    ("engine", "blocked", "foreign"),
    [
        ("sqlite", ("pymysql",), "primacy.engines.mariadb"),
        ("mariadb", ("apsw",), "primacy.engines.sqlite"),
    ],
)
def test_a_node_of_one_engine_needs_no_package_of_the_other(
    engine: str, blocked: tuple[str, ...], foreign: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(engine=engine, blocked=blocked)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert f"primacy.engines.{engine}.engine" in loaded
    assert [each for each in loaded if each.startswith(f"{foreign}.engine")] == []


MISSING = {"mariadb": ("pymysql", r"primacy\[mariadb\]"), "sqlite": ("apsw", "apsw")}


@pytest.mark.parametrize(("engine", "missing"), MISSING.items(), ids=MISSING)
def test_a_missing_package_is_named(
    engine: str, missing: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, source = missing
    found = config(tmp_path, engine)
    assert kit.kit_of(found).page(found, A).name.startswith("primacy-shop-a-")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Rejected, match=f"needs the package {module}.*pip install '{source}'"):
        kit.kit_of(found)


def test_the_file_becomes_the_engines_settings(tmp_path: Path) -> None:
    found = sqlite_settings(
        config(
            tmp_path,
            cluster={"lease_ttl_s": 1.0},
            durability={"ack_on": "applied"},
            sqlite={
                "database": "orders",
                "logging": "mixed",
                "users_file": "users",
                "readers": 3,
                "transaction_idle_s": 1.0,
                "idempotency_keep_s": 60.0,
                "log_keep_mb": 64,
                "reserve_mb": 16,
                "clone_mb_s": 5,
            },
        ),
        A,
    )
    assert (found.database, found.logging, found.ack_on) == ("orders", Logging.MIXED, AckOn.APPLIED)
    assert found.doors[A] == Address("10.1.2.3", 3306)
    assert found.pull_doors[B] == Address("fd00::4", 7105)
    assert found.clone_doors[B] == Address("fd00::4", 7103)
    assert found.users_path == tmp_path / "users"
    assert found.state_dir == tmp_path / "s/a"
    limits = found.limits
    assert (limits.readers, limits.transaction_idle_s, limits.requests_keep_s) == (3, 1.0, 60.0)
    assert (limits.log_keep_bytes, limits.reserve_bytes) == (64 << 20, 16 << 20)
    assert found.clone_from_primary_mb_s == 5
    assert found.timing.health_s == pytest.approx(0.6)


def test_the_url_leads_through_every_router(tmp_path: Path) -> None:
    found, at = config(tmp_path), SqliteKit()
    assert at.url(found, user="", is_read=False) == (
        "primacy://10.1.2.3:3307,[fd00::4]:3307,10.1.2.5:3307/db"
    )
    assert at.url(found, user="a@b", is_read=True) == (
        "primacy://a%40b@10.1.2.3:3308,[fd00::4]:3308,10.1.2.5:3308/db?target=replica"
    )


def test_the_shell_of_another_protocol_is_named(tmp_path: Path) -> None:
    found = config(tmp_path, "mariadb")
    with pytest.raises(Rejected, match=r"mariadb -h 10\.1\.2\.3 -P 3307"):
        kit.kit_of(found).url(found, user="", is_read=False)


LIBRARIES = {
    "as it should be": ("3.54.1", ("ENABLE_PREUPDATE_HOOK",), ""),
    "too old": ("3.49.9", ("ENABLE_PREUPDATE_HOOK",), "at least 3.50 is needed"),
    "without the hook": ("3.54.1", ("ENABLE_FTS5",), "was built without ENABLE_PREUPDATE_HOOK"),
}


@pytest.mark.parametrize(("version", "options", "rule"), LIBRARIES.values(), ids=LIBRARIES)
def test_a_library_that_cannot_capture_is_named(
    version: str, options: tuple[str, ...], rule: str
) -> None:
    found = list(library_problems(version, options))
    assert [rule in each.rule for each in found] == ([True] if rule else [])


def test_the_library_that_is_pinned_will_do(tmp_path: Path) -> None:
    assert list(SqliteKit().program_problems(config(tmp_path))) == []


USERS = {
    "as it should be": (user_line("app", "secret"), 0o600, ""),
    "open to others": (user_line("app", "secret"), 0o644, "chmod 600"),
    "not there": (None, 0o600, "No such file"),
    "a password instead": ("app secret", 0o600, "line 1: not a name and a SCRAM-SHA-256 verifier"),
    "nobody": ("# nobody yet", 0o600, "names no user"),
}


@pytest.mark.parametrize(("text", "mode", "rule"), USERS.values(), ids=USERS)
def test_a_file_of_users_that_cannot_be_used_is_named(
    text: str | None, mode: int, rule: str, tmp_path: Path
) -> None:
    path = tmp_path / "users"
    if text is not None:
        path.write_text(f"{text}\n")
        path.chmod(mode)
    found: list[Problem] = list(users_problems(path))
    assert [(each.key, rule in each.rule) for each in found] == (
        [("sqlite.users_file", True)] if rule else []
    )


def test_verifiers_are_kept_out_of_a_report(tmp_path: Path) -> None:
    line = user_line("app", "secret")
    (tmp_path / "users").write_text(f"{line}\n")
    found = config(tmp_path, sqlite={"users_file": "users"})
    assert SqliteKit().secrets(found) == {line.split()[1]}
    (tmp_path / "users").write_text("nonsense\n")
    assert SqliteKit().secrets(found) == set()


def test_data_of_somebody_else_are_named_and_not_touched(tmp_path: Path) -> None:
    found = config(tmp_path)
    assert list(SqliteKit().data_problems(found, A)) == []
    data = found.state_dir("a") / "data"
    data.mkdir(parents=True)
    (data / "db.sqlite").write_text("somebody's")
    (problem,) = SqliteKit().data_problems(found, A)
    assert problem.key == "nodes.a.state_dir"
    assert "It is never touched" in problem.rule
