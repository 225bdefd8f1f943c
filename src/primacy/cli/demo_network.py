"""The network of a demo: loopback for all, or a host of its own for each node.

Who may not have the second has a third, in `demo_relayed`.

                  clients, observer (this network namespace)
                       | 10.x.y.254
            [ hub: a bridge in a namespace of its own ]
             |              |              |
            [ a ] 10.x.y.1  [ b ] .2       [ c ] .3      namespaces, one for each node

Promises  What one node hears of another can be cut in one direction and on chosen ports, and healed
          again; clients still reach everybody. Names and addresses are made up for each run, so two
          demos do not meet. `close` removes all of it.
Assumes   Linux, root, and the programs ip, nft and nsenter. No process is left inside at `close`.
"""

import os
import random
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from primacy.cli.demo_programs import SEARCH_PATH, run, tried
from primacy.errors import Rejected, Unavailable
from primacy.model import NodeId

LOOPBACK = "127.0.0.1"
PROGRAMS = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
"""Program -> Debian's package."""
TRIES = 20
CLIENTS = 254
"""The last number of the clients' own address."""


class Network(Protocol):
    """Where the nodes of a cluster on this machine live."""

    clients_host: str
    """The address from which clients of this machine come."""

    def host(self, node: NodeId) -> str:
        """Where it listens, and where clients of this machine find it."""
        ...

    def seen(self, node: NodeId, by: NodeId) -> str:
        """The host at which one node finds another."""
        ...

    def open(self, ports: Mapping[NodeId, Collection[int]]) -> None:
        """Hear at which ports each node will listen, before any is started."""
        ...

    def inside(self, node: NodeId, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` on that node's host."""
        ...

    def close(self) -> None: ...


class CuttableNetwork(Network, Protocol):
    """One in which nodes can be kept from hearing each other. Clients still reach them all."""

    def cut(self, sender: NodeId, receiver: NodeId, *, ports: Collection[int] = ()) -> None:
        """What `sender` sends never reaches `receiver`; with `ports`, only TCP from or to these."""
        ...

    def heal(self) -> None:
        """Everybody hears everybody again."""
        ...


class Loopback:
    """All nodes on this machine's own loopback address: nothing can be cut."""

    clients_host = LOOPBACK

    def host(self, node: NodeId) -> str:
        del node
        return LOOPBACK

    def seen(self, node: NodeId, by: NodeId) -> str:
        del node, by
        return LOOPBACK

    def open(self, ports: Mapping[NodeId, Collection[int]]) -> None:
        del ports

    def inside(self, node: NodeId, argv: Sequence[str]) -> list[str]:
        del node
        return list(argv)

    def close(self) -> None:
        return


class Namespaces:
    """Each node has a network namespace, joined to the others by a bridge. The methods block for
    some milliseconds: they belong into a thread."""

    def __init__(self, names: Sequence[str], chance: random.Random) -> None:
        """`Rejected` where this machine does not allow it; nothing is left behind then."""
        missing = why_no_namespaces()
        if missing:
            raise Rejected(f"no network of its own for each node: {missing}", hint=_HINT)
        self._nodes = [NodeId(name) for name in names]
        self._tag = ""
        for _ in range(TRIES):
            self._net = f"10.{chance.randrange(64, 256)}.{chance.randrange(256)}"
            self._tag = "prm{:02x}{:02x}".format(*map(int, self._net.split(".")[1:]))
            if self._take():
                break
        else:
            raise Unavailable(f"{TRIES} networks were taken already", hint="Run it again.")
        try:
            for node in self._nodes:
                self._add(node)
        except BaseException:
            self.close()
            raise
        self.clients_host = f"{self._net}.{CLIENTS}"

    def host(self, node: NodeId) -> str:
        return f"{self._net}.{self._nodes.index(node) + 1}"

    def seen(self, node: NodeId, by: NodeId) -> str:
        del by
        return self.host(node)

    def open(self, ports: Mapping[NodeId, Collection[int]]) -> None:
        del ports

    def inside(self, node: NodeId, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self._space(node)}", "--", *argv]

    def cut(self, sender: NodeId, receiver: NodeId, *, ports: Collection[int] = ()) -> None:
        """What `sender` sends never reaches `receiver`; with `ports`, only TCP from or to these."""
        rule = f"ip saddr {self.host(sender)}"
        numbers = ", ".join(str(port) for port in sorted(ports))
        rules = (
            [f"{rule} tcp dport {{ {numbers} }} drop", f"{rule} tcp sport {{ {numbers} }} drop"]
            if ports
            else [f"{rule} drop"]
        )
        run(
            self.inside(receiver, ["nft", "-f", "-"]),
            given="".join(f"add rule inet cut hears {each}\n" for each in rules),
        )

    def heal(self) -> None:
        """Everybody hears everybody again."""
        for node in self._nodes:
            run(self.inside(node, ["nft", "flush", "chain", "inet", "cut", "hears"]))

    def close(self) -> None:
        """Remove all of it, whatever of it there is."""
        found = run(["ip", "netns", "list"]).split()
        for space in (*map(self._space, self._nodes), self._hub):
            if space in found:
                run(["ip", "netns", "delete", space])
        if os.path.exists(f"/sys/class/net/{self._tag}"):  # noqa: PTH110 -- a device, not a file
            run(["ip", "link", "delete", "dev", self._tag])

    # ---- making it

    @property
    def _hub(self) -> str:
        return f"{self._tag}-hub"

    def _space(self, node: NodeId) -> str:
        return f"{self._tag}-{node}"

    def _take(self) -> bool:
        """The hub and the clients' way to it; False where the name is somebody else's."""
        try:
            run(["ip", "netns", "add", self._hub])
        except Unavailable as error:
            if "exists" in error.what:
                return False
            raise
        try:
            run(["ip", "-n", self._hub, "link", "add", "name", "lan", "type", "bridge"])
            run(["ip", "-n", self._hub, "link", "set", "dev", "lan", "up"])
            self._plug(["ip"], device=self._tag, port="uplink", number=CLIENTS)
        except BaseException:
            run(["ip", "netns", "delete", self._hub])
            raise
        return True

    def _add(self, node: NodeId) -> None:
        space = self._space(node)
        run(["ip", "netns", "add", space])
        run(["ip", "-n", space, "link", "set", "dev", "lo", "up"])
        number = self._nodes.index(node) + 1
        self._plug(["ip", "-n", space], device="eth0", port=f"to-{node}"[:15], number=number)
        run(
            self.inside(node, ["nft", "-f", "-"]),
            given="add table inet cut\n"
            "add chain inet cut hears { type filter hook input priority 0; policy accept; }\n",
        )

    def _plug(self, ip: list[str], *, device: str, port: str, number: int) -> None:
        """A cable from `device`, where `ip` works, to a port of the hub."""
        peer = ["peer", "name", port, "netns", self._hub]
        run([*ip, "link", "add", "name", device, "type", "veth", *peer])
        run(["ip", "-n", self._hub, "link", "set", "dev", port, "master", "lan", "up"])
        run([*ip, "address", "add", f"{self._net}.{number}/24", "dev", device])
        run([*ip, "link", "set", "dev", device, "up"])


_HINT = "Run it as root with iproute2 and nftables, or name faults that do not cut the network."


def why_no_namespaces() -> str:
    """What is missing here, in words; empty where nothing is."""
    if os.geteuid() != 0:
        return "that needs root"
    missing = [each for each in PROGRAMS if shutil.which(each, path=SEARCH_PATH) is None]
    if missing:
        packages = " ".join(sorted({PROGRAMS[each] for each in missing}))
        return f"{', '.join(missing)} not found (apt-get install {packages})"
    kernel = tried(["unshare", "--net", "nft", "list", "tables"])
    return "" if kernel.returncode == 0 else f"the kernel refuses: {kernel.stderr.strip()}"
