"""The relay of a demo on real sockets: who hears whom, while directions are cut and healed."""

import random
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.ports import free_ports

from primacy.cli.demo_relay import WINDOW_PIECES
from primacy.cli.demo_relayed import Relayed, why_no_relay
from primacy.errors import Unavailable
from primacy.model import NodeId

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(why_no_relay() != "", reason=f"no relay: {why_no_relay()}"),
]

A, B = NodeId("a"), NodeId("b")
WITHIN_S = 10.0
SILENT_FOR_S = 0.3
"""What is cut must not arrive meanwhile. A slow machine can only pass this too easily."""


@dataclass(slots=True)
class Wire:
    """b's door, and a relay through which a reaches it."""

    network: Relayed
    door: socket.socket
    port: int
    """Of b's door."""
    kept: ExitStack

    def call(self) -> socket.socket:
        """As a: one more connection to b."""
        where = (self.network.seen(B, A), self.port)
        return self.kept.enter_context(socket.create_connection(where, timeout=WITHIN_S))

    def accept(self) -> tuple[socket.socket, str]:
        """As b: the connection, and whom it seems to come from."""
        assert hears(self.door), "nobody calls"
        line, (host, _) = self.door.accept()
        line.settimeout(WITHIN_S)
        return self.kept.enter_context(line), host

    def joined(self) -> tuple[socket.socket, socket.socket]:
        """a's end and b's of a connection that carries both ways."""
        near = self.call()
        far, _ = self.accept()
        for one, other in ((near, far), (far, near)):
            one.sendall(b"hello")
            assert other.recv(100) == b"hello"
        return near, far


def hears(line: socket.socket, within_s: float = WITHIN_S) -> bool:
    return bool(select.select([line], [], [], within_s)[0])


def is_over(line: socket.socket) -> bool:
    try:
        return line.recv(100) == b""
    except ConnectionResetError:
        return True


def is_silent(line: socket.socket) -> bool:
    return not hears(line, SILENT_FOR_S)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with ExitStack() as kept:
        port, unused = free_ports(2)
        network = Relayed((A, B), random.Random())
        kept.callback(network.close)
        network.open({A: (unused,), B: (port, unused)})
        door = kept.enter_context(socket.create_server((network.host(B), port)))
        yield Wire(network, door, port, kept)


def test_each_seems_to_be_where_the_other_finds_it(wire: Wire) -> None:
    """A router takes connections from hosts of the cluster only."""
    wire.call()
    _, host = wire.accept()
    assert host == wire.network.seen(A, B) != wire.network.seen(B, A)


def test_an_end_is_told_in_either_direction(wire: Wire) -> None:
    near, far = wire.joined()
    near.shutdown(socket.SHUT_WR)
    assert far.recv(100) == b""
    far.sendall(b"still there")
    assert near.recv(100) == b"still there"
    far.close()
    assert near.recv(100) == b""


def test_more_than_all_buffers_hold_arrives_whole(wire: Wire) -> None:
    near, far = wire.joined()
    text = random.Random(1).randbytes(16 << 20)
    near.settimeout(0)
    sent, heard = 0, bytearray()
    while len(heard) < len(text):
        readable, writable, _ = select.select([far], [near] if sent < len(text) else [], [], 10)
        assert readable or writable
        if writable:
            sent += near.send(text[sent : sent + (1 << 18)])
        if readable:
            heard += far.recv(1 << 18)
    assert heard == text


def test_one_direction_is_cut_and_the_other_is_not(wire: Wire) -> None:
    near, far = wire.joined()
    wire.network.cut(A, B)
    near.sendall(b"held")
    far.sendall(b"heard")
    assert near.recv(100) == b"heard"
    assert is_silent(far)
    wire.network.heal()
    assert far.recv(100) == b"held"


def test_against_a_cut_only_a_first_window_comes_through(wire: Wire) -> None:
    """Nothing acknowledges it. A member that went on hearing its leader would show old news."""
    near, far = wire.joined()
    wire.network.cut(B, A)
    heard = 0
    while heard < 10 * WINDOW_PIECES:
        near.sendall(b"x")
        if is_silent(far):
            break
        heard += len(far.recv(100))
    assert 0 < heard <= WINDOW_PIECES
    wire.network.heal()
    assert far.recv(100) == b"x"


def test_an_end_behind_a_cut_is_told_after_it(wire: Wire) -> None:
    near, far = wire.joined()
    wire.network.cut(A, B)
    near.sendall(b"last words")
    near.close()
    assert is_silent(far)
    wire.network.heal()
    assert far.recv(100) == b"last words"
    assert far.recv(100) == b""


@pytest.mark.parametrize(("sender", "receiver"), [(A, B), (B, A)])
def test_a_call_while_either_direction_is_cut_is_heard_of_later(
    wire: Wire, sender: NodeId, receiver: NodeId
) -> None:
    wire.network.cut(sender, receiver)
    near = wire.call()
    near.sendall(b"anybody?")
    assert is_silent(wire.door)
    wire.network.heal()
    far, _ = wire.accept()
    assert far.recv(100) == b"anybody?"


def test_a_call_that_was_given_up_behind_a_cut_is_never_heard_of(wire: Wire) -> None:
    wire.network.cut(A, B)
    given_up = wire.call()
    given_up.sendall(b"anybody?")
    given_up.shutdown(socket.SHUT_WR)
    assert is_over(given_up)
    wire.network.heal()
    near = wire.call()
    near.sendall(b"me")
    far, _ = wire.accept()
    assert far.recv(100) == b"me"
    assert is_silent(wire.door)


def test_a_cut_of_other_doors_is_none_of_this_one(wire: Wire) -> None:
    near, far = wire.joined()
    wire.network.cut(A, B, ports=(wire.port - 1,))
    near.sendall(b"heard")
    assert far.recv(100) == b"heard"
    wire.network.cut(A, B, ports=(wire.port,))
    near.sendall(b"held")
    assert is_silent(far)


def test_whom_nobody_answers_is_told_so(wire: Wire) -> None:
    wire.door.close()
    assert is_over(wire.call())


def test_a_relay_that_has_ended_is_told_of(wire: Wire) -> None:
    wire.network.close()
    with pytest.raises((Unavailable, ValueError)):
        wire.network.heal()
