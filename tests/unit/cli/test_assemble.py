"""What the configuration becomes where it is more than a copy."""

from pathlib import Path

import pytest

from primacy.cli.kits.mariadb import mariadb_settings
from primacy.config import Config, parse
from primacy.model import NodeId

SECRET = "00" * 32


def config(directory: Path, *, host: str = "10.1.2.3", ttl_s: float = 3.0) -> Config:
    (directory / "primacy.secret").write_text(SECRET)
    (directory / "primacy.secret").chmod(0o600)
    hosts = {"a": host, "b": "10.1.2.4", "c": "10.1.2.5"}
    found, problems = parse(
        {
            "cluster": {
                "name": "shop",
                "engine": "mariadb",
                "lease_ttl_s": ttl_s,
                "insecure": True,
            },
            "nodes": {name: {"host": each} for name, each in hosts.items()},
        },
        directory,
    )
    assert problems == []
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", ("127.0.0.1/32", "::1/128", "10.1.2.3/32")),
        ("fd00::7", ("127.0.0.1/32", "::1/128", "fd00::7/128")),
        ("127.0.0.1", ("127.0.0.1/32", "::1/128")),
    ],
)
def test_a_server_trusts_the_router_of_its_own_host(
    tmp_path: Path, host: str, expected: tuple[str, ...]
) -> None:
    assert mariadb_settings(config(tmp_path, host=host), NodeId("a")).proxy_networks == expected


@pytest.mark.parametrize(("ttl_s", "health_s"), [(1.0, 0.6), (1.5, 0.9), (3.0, 1.0), (30.0, 1.0)])
def test_a_short_lease_makes_a_silent_server_hung_sooner(
    tmp_path: Path, ttl_s: float, health_s: float
) -> None:
    settings = mariadb_settings(config(tmp_path, ttl_s=ttl_s), NodeId("a"))
    assert settings.timing.health_s == pytest.approx(health_s)
