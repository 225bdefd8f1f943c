"""A real MariaDB server and a real driver at the router's doors."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.routing.conftest import Told, World
from tests.ports import free_ports

from primacy.model import Address, NodeId

pymysql = pytest.importorskip("pymysql")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.mariadb,
    # PyMySQL leaves the socket of a refused login to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(
        shutil.which("mariadbd", path="/usr/sbin:/usr/bin") is None,
        reason="mariadbd is not installed",
    ),
]

A, B = NodeId("a"), NodeId("b")
STARTED_WITHIN_S = 60.0


@pytest.fixture
def server() -> Iterator[Path]:
    """A server of its own that takes PROXY headers from this host. Yields its directory.

    Not under tmp_path: each pytest that starts closes the parent of those to other users, and
    the server is another user when the tests run as root.
    """
    with tempfile.TemporaryDirectory(prefix="primacy-router-") as found:
        Path(found).chmod(0o755)
        yield from running(Path(found))


def running(directory: Path) -> Iterator[Path]:
    data, temporary = directory / "data", directory / "tmp"
    temporary.mkdir()  # Its own: a server that starts deletes the temporary tables of others.
    user = ["--user=mysql"] if os.geteuid() == 0 else []
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", *user]
    install.append(f"--tmpdir={temporary}")
    if os.geteuid() == 0:
        shutil.chown(directory, "mysql")
        shutil.chown(temporary, "mysql")
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    command = [
        shutil.which("mariadbd", path="/usr/sbin:/usr/bin") or "mariadbd",
        "--no-defaults",
        f"--datadir={data}",
        f"--tmpdir={temporary}",
        f"--socket={directory}/s",
        f"--pid-file={directory}/pid",
        f"--log-error={directory}/log",
        "--bind-address=127.0.0.1",
        f"--port={free_ports(1)[0]}",
        "--skip-name-resolve",
        "--proxy-protocol-networks=127.0.0.1/32",
        *user,
    ]
    process = subprocess.Popen(command)
    try:
        yield directory
    finally:
        process.kill()
        process.wait(30)


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as found, contextlib.suppress(OSError):
        found.connect(str(path))
        return True
    return False


async def prepared(directory: Path) -> int:
    """Wait for the server, make two accounts, and say on which port it listens."""
    async with asyncio.timeout(STARTED_WITHIN_S):
        while not is_listening(directory / "s"):
            await asyncio.sleep(0.05)
    root = pymysql.connect(unix_socket=str(directory / "s"), user="root")
    with root, root.cursor() as cursor:
        cursor.execute("CREATE USER here@'127.0.0.2' IDENTIFIED BY 'x'")
        cursor.execute("CREATE USER app@'127.0.0.%' IDENTIFIED BY 'x'")
        cursor.execute("SELECT @@port")
        return int(cursor.fetchone()[0])


def asked(port: int, user: str, statement: str, *, source: str = "127.0.0.2") -> object:
    connection = pymysql.connect(
        host="127.0.0.1", port=port, user=user, password="x", bind_address=source, read_timeout=20
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def test_the_server_sees_the_clients_own_address_through_one_router_and_two(
    world: World, told: Told, server: Path
) -> None:
    async def story() -> None:
        async with world:
            world.databases[A].address = Address("127.0.0.1", await prepared(server))
            await world.lead(A, 1)
            await world.start(A, B)
            for node in (A, B):
                port = next(iter(world.routers[node].addresses.values())).port
                who = await asyncio.to_thread(asked, port, "here", "SELECT CURRENT_USER()")
                assert who == "here@127.0.0.2"
                with pytest.raises(pymysql.OperationalError, match="Access denied"):
                    await asyncio.to_thread(asked, port, "here", "SELECT 1", source="127.0.0.3")
                text = await asyncio.to_thread(asked, port, "app", "SELECT REPEAT('x', 9000000)")
                assert len(str(text)) == 9_000_000

    told(story())


def test_a_driver_shows_the_reason_of_a_refusal_and_may_retry_it(world: World, told: Told) -> None:
    async def story() -> None:
        async with world:
            await world.start(A, hold_s=0.3)
            port = next(iter(world.routers[A].addresses.values())).port
            with pytest.raises(pymysql.OperationalError) as caught:
                await asyncio.to_thread(asked, port, "app", "SELECT 1")
            code, text = caught.value.args
            assert code == 1053
            assert text.endswith("primacy: no database for 0.3 s: there is no primary yet")

    told(story())
