"""A demo's network where namespaces cannot be made: all on loopback, through a relay that cuts.

    clients, observer --> 127.0.0.1                      every node, directly
    node a            --> 127.x.y.12 --[ relay ]-->      node b, to whom it comes from 127.x.y.21

Promises  As `demo_network.Namespaces`: what one node hears of another can be cut in one direction
          and on chosen doors, and healed; clients still reach everybody.
Assumes   Linux: all of 127.0.0.0/8 is this machine. The addresses are made up for each run, and the
          ports are the cluster's own, so two demos do not meet.
"""

import itertools
import random
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing

import msgspec

from primacy.cli.demo_network import (
    LOOPBACK,
    CuttableNetwork,
    Namespaces,
    why_no_namespaces,
)
from primacy.cli.demo_relay import Cut, Done, Door, Heal, Open, Order
from primacy.errors import Unavailable
from primacy.model import NodeId

NODES_MAX = 9
ENDS_WITHIN_S = 5.0
PROBE = "127.90.90.90"


class Relayed:
    """Use `close` when the cluster has ended. The methods block for some milliseconds."""

    clients_host = LOOPBACK

    def __init__(self, names: Sequence[str], chance: random.Random) -> None:
        if len(names) > NODES_MAX:
            raise Unavailable(f"{len(names)} nodes in one relay", hint=f"At most {NODES_MAX}.")
        self._nodes = [NodeId(name) for name in names]
        self._net = f"127.{chance.randrange(64, 256)}.{chance.randrange(1, 256)}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "primacy.cli.demo_relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def host(self, node: NodeId) -> str:
        del node
        return LOOPBACK

    def seen(self, node: NodeId, by: NodeId) -> str:
        """A node finds itself without the relay."""
        if node == by:
            return LOOPBACK
        return f"{self._net}.{(self._nodes.index(by) + 1) * 10 + self._nodes.index(node) + 1}"

    def inside(self, node: NodeId, argv: Sequence[str]) -> list[str]:
        del node
        return list(argv)

    def open(self, ports: Mapping[NodeId, Collection[int]]) -> None:
        doors = [
            Door(
                client=client,
                server=server,
                listen=self.seen(server, client),
                source=self.seen(client, server),
                target=self.host(server),
                port=port,
            )
            for client, server in itertools.permutations(self._nodes, 2)
            for port in ports[server]
        ]
        self._tell(Open(tuple(doors)))

    def cut(self, sender: NodeId, receiver: NodeId, *, ports: Collection[int] = ()) -> None:
        self._tell(Cut(sender, receiver, tuple(sorted(ports))))

    def heal(self) -> None:
        self._tell(Heal())

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _tell(self, order: Order) -> None:
        """`Unavailable` where the relay does not carry it out."""
        told, heard = self._process.stdin, self._process.stdout
        if told is None or heard is None:
            raise Unavailable("the relay has no pipes", hint="Run the demo again.")
        try:
            told.write(msgspec.json.encode(order) + b"\n")
            told.flush()
            line = heard.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise Unavailable("the relay has ended", hint="Its own words are above.")
        problem = msgspec.json.decode(line, type=Done).problem
        if problem:
            raise Unavailable(f"the relay: {problem}", hint="Run the demo again.")


def why_no_relay() -> str:
    """What is missing here, in words; empty where nothing is."""
    with closing(socket.socket()) as probe:
        try:
            probe.bind((PROBE, 0))
        except OSError as error:
            return f"{PROBE} is no address of this machine ({error.strerror})"
    return ""


def why_no_cuts() -> str:
    """Why nothing can be cut here; empty where one of the two ways can be gone."""
    namespaces = why_no_namespaces()
    relay = why_no_relay() if namespaces else ""
    return f"no namespaces: {namespaces}; and no relay: {relay}" if relay else ""


def cuttable(
    names: Sequence[str], chance: random.Random, *, is_relayed: bool
) -> tuple[CuttableNetwork, str]:
    """The best that this machine allows, or the relay; and what there is to say of it."""
    missing = "a relay was asked for" if is_relayed else why_no_namespaces()
    if not missing:
        return Namespaces(names, chance), ""
    return Relayed(
        names, chance
    ), f"a relay cuts, and no network of its own for each node: {missing}"
