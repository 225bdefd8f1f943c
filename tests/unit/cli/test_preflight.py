"""What stands in the way on this host is said before anything is started or written."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.ports import free_ports

from primacy.cli.init import Wish, base_ports, checked, rendered
from primacy.cli.preflight import check_router, check_run, serves_http
from primacy.config import Api, Config, ConfigRejected

NODES = (("a", "127.0.0.1"), ("b", "127.0.0.1"), ("c", "127.0.0.1"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tmp_path.chmod(0o755)
    text = rendered(Wish(name="shop", engine="mariadb", nodes=NODES, state_dir="state"))
    keys = [line for line in text.splitlines() if "_port = " in line]
    ports = iter(free_ports(len(keys) + len(base_ports("mariadb"))))
    for key in keys:
        text = text.replace(key, f"{key.split(' = ')[0]} = {next(ports)}", 1)
    own = "".join(f"{name} = {next(ports)}\n" for name in base_ports("mariadb"))
    return checked(text.replace("[nodes.b]", f"{own}\n[nodes.b]"), tmp_path)


def mistakes(config: Config, node: str) -> dict[str, str]:
    with pytest.raises(ConfigRejected) as caught:
        check_run(config, node)
    return {each.key: each.rule for each in caught.value.problems}


@pytest.fixture
def taken(config: Config) -> Iterator[int]:
    with socket.socket() as listener:
        port = config.node("a").store_port
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
        yield port


def test_a_port_that_is_taken_is_named(config: Config, taken: int) -> None:
    assert (
        f"127.0.0.1:{taken}: address already in use" in mistakes(config, "a")["nodes.a.store_port"]
    )


def test_ports_that_are_taken_are_named_in_the_order_of_the_file(config: Config) -> None:
    ports = config.ports("a")
    with ExitStack() as stack:
        for port in ports.values():
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", port))
            listener.listen(1)
        keys = [key for key in ports if key != "api_port"]
        assert [key for key in mistakes(config, "a") if key.endswith("_port")] == [
            f"nodes.a.{key}" for key in (*keys, "api_port")
        ]


def test_a_foreign_data_directory_is_never_touched(config: Config, tmp_path: Path) -> None:
    data = tmp_path / "state/a/data"
    data.mkdir(parents=True)
    (data / "ibdata1").write_text("somebody's")
    assert "no mark of primacy" in mistakes(config, "a")["nodes.a.state_dir"]
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == ["ibdata1"]


def test_programs_that_are_missing_are_named_with_their_package(config: Config) -> None:
    odd = config.model_copy(
        update={"mariadb": config.mariadb.model_copy(update={"server": "no-such-server"})}
    )
    rule = mistakes(odd, "a")["MariaDB's programs"]
    assert "apt-get install --no-install-recommends" in rule


def test_the_door_for_http_is_checked_where_it_listens(config: Config, tmp_path: Path) -> None:
    port = config.node("a").api_port
    token = str(tmp_path / "no-token")
    odd = config.model_copy(update={"api": config.api.model_copy(update={"token_file": token})})
    with socket.create_server(("127.0.0.1", port)):
        found = mistakes(odd, "a")
        assert f"127.0.0.1:{port}: address already in use" in found["nodes.a.api_port"]
        assert "No such file" in found["api.token_file"]
        server = config.mariadb.model_copy(update={"server": "no-such-server"})
        off = config.api.model_copy(update={"enabled": False})
        found = mistakes(config.model_copy(update={"api": off, "mariadb": server}), "a")
        assert "MariaDB's programs" in found
        assert "nodes.a.api_port" not in found


def test_several_things_in_the_way_come_together(
    config: Config, tmp_path: Path, taken: int
) -> None:
    data = tmp_path / "state/a/data"
    data.mkdir(parents=True)
    (data / "x").write_text("x")
    assert {"nodes.a.store_port", "nodes.a.state_dir"} <= set(mistakes(config, "a"))
    assert taken


def test_a_node_that_runs_already_is_said_to(config: Config, tmp_path: Path) -> None:
    run = tmp_path / "state/a/run"
    run.mkdir(parents=True)
    sleeper = [sys.executable, "-c", "print(flush=True); input()", "run", "--node", "a"]
    with subprocess.Popen(sleeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # From now on its command line is its own.
        (run / "agent.pid").write_text(f"{process.pid}\n")
        found = mistakes(config, "a")
        process.communicate(b"\n")
    assert found == {"--node": f"it runs here already, as process {process.pid}"}


def test_the_doors_of_its_own_router_are_not_in_the_way(config: Config, tmp_path: Path) -> None:
    run = tmp_path / "state/a/run"
    run.mkdir(parents=True)
    door = config.node("a").rw_port
    program = (
        "import socket,sys; s=socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1])));"
        " s.listen(1); print(flush=True); input()"
    )
    line = [sys.executable, "-c", program, str(door), "router", "--node", "a"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (run / "router.pid").write_text(f"{process.pid}\n")
        with pytest.raises(ConfigRejected, match="rw_port"):
            check_router(config, "a")
        problems = set()
        try:
            check_run(config, "a")
        except ConfigRejected as error:
            problems = {each.key for each in error.problems}
        process.communicate(b"\n")
    assert "nodes.a.rw_port" not in problems


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user the server runs as primacy does")
def test_a_directory_that_the_server_may_not_enter_is_named(config: Config, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert "may not enter" in mistakes(config, "a")["nodes.a.state_dir"]


def test_without_its_packages_an_api_that_nobody_asked_for_is_not_in_the_way(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert not serves_http(config)
    server = config.mariadb.model_copy(update={"server": "no-such-server"})
    config = config.model_copy(update={"mariadb": server})
    assert "api.enabled" not in mistakes(config, "a")
    asked = config.model_copy(update={"api": Api(enabled=True)})
    assert serves_http(asked)
    assert "starlette not found: pip install 'primacy[http]'" in mistakes(asked, "a")["api.enabled"]
    off = config.model_copy(update={"api": Api(enabled=False)})
    assert "api.enabled" not in mistakes(off, "a")
