"""Connections of another process that wait for a silent host are cut; all others stay."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from primacy.clock import SystemClock
from primacy.model import Address
from primacy.runtime.outgoing import cut_outgoing
from primacy.runtime.processes import Watched, watch

pytestmark = pytest.mark.integration

HOST = "127.0.0.1"
WITHIN_S = 20.0
NO_PORT = 1

READER = f"""
import socket, sys
s = socket.create_connection(("{HOST}", int(sys.argv[1])))
print("connected", flush=True)
print("heard", s.recv(10), flush=True)
"""
CONNECTOR = f"""
import socket, sys
print("connects", flush=True)
try:
    socket.create_connection(("{HOST}", int(sys.argv[1])))
except OSError as error:
    print("refused", type(error).__name__, flush=True)
"""
SERVER = f"""
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("{HOST}", 0)); s.listen()
print(s.getsockname()[1], flush=True)
accepted, _ = s.accept()
print("heard", accepted.recv(10), flush=True)
"""


@contextmanager
def child(program: str, *arguments: object) -> Iterator[tuple["subprocess.Popen[str]", Watched]]:
    """It has said its first line when `watch` is given back."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    ) as process:
        watched = watch(process.pid)
        assert watched is not None
        try:
            yield process, watched
        finally:
            process.kill()
            watched.close()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def silent() -> Iterator[Address]:
    """A host that lets itself be connected to, and says nothing."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(1)
        yield Address(HOST, listener.getsockname()[1])


@pytest.mark.parametrize("host", [HOST, "a-name-is-not-looked-up"])
def test_who_waits_for_an_answer_hears_the_end(silent: Address, host: str) -> None:
    with child(READER, silent.port) as (process, watched):
        assert line_of(process) == "connected"
        assert cut_outgoing(watched, Address(host, silent.port), own_port=NO_PORT) == 1
        assert line_of(process) == "heard b''"
        process.wait(WITHIN_S)
        assert cut_outgoing(watched, silent, own_port=NO_PORT) == 0, "it has exited"


def test_who_waits_to_be_let_in_is_refused() -> None:
    """A full queue of a listener: the kernel drops who knocks, as a cut network does."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((HOST, 0))
        listener.listen(0)
        full = Address(HOST, listener.getsockname()[1])
        first.connect((HOST, full.port))
        second.settimeout(0)
        second.connect_ex((HOST, full.port))
        with child(CONNECTOR, full.port) as (process, watched):
            assert line_of(process) == "connects"
            until_s = SystemClock().now_s() + WITHIN_S
            while not cut_outgoing(watched, full, own_port=NO_PORT):
                assert SystemClock().now_s() < until_s
            assert line_of(process).startswith("refused")


def test_other_connections_stay(silent: Address) -> None:
    with (
        child(SERVER) as (process, watched),
        socket.create_connection((HOST, int(line_of(process)))) as client,
    ):
        own_port = client.getpeername()[1]
        came_from = Address(HOST, client.getsockname()[1])
        assert cut_outgoing(watched, came_from, own_port=own_port) == 0, "the other side opened it"
        assert cut_outgoing(watched, silent, own_port=NO_PORT) == 0, "it goes elsewhere"
        client.sendall(b"hello")
        assert line_of(process) == "heard b'hello'"
