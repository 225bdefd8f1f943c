"""Ports on which servers can be started a little later, for clusters that live on one machine.

Asking the kernel for port 0 gives a number that the next outgoing connection of anybody may get
before the server binds it. So:

Promises  Every number is below the range from which the kernel takes ports for outgoing
          connections, was free when it was handed out, and is handed out to nobody else on this
          network namespace who asks this class, until the object is closed or its process ends.
Assumes   Linux: a block of numbers is held by a socket with an abstract name, which the kernel
          gives back when its owner dies. Nobody else listens on ports of his own choice meanwhile.
"""

import random
import socket
from pathlib import Path
from types import TracebackType

from primacy.errors import Unavailable

FIRST_PORT = 10_000
"""Below are the usual servers' ports, primacy's own defaults among them."""

BLOCK_PORTS = 64
"""Three nodes need 21: one socket holds what a cluster needs."""

EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class PortBlocks:
    """Hands out free ports, from blocks that it holds until it is closed."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._held: list[socket.socket] = []
        self._left: list[int] = []

    def take(self, count: int) -> list[int]:
        """`count` different ports. Raises `Unavailable` where every block is held."""
        taken: list[int] = []
        while len(taken) < count:
            if not self._left:
                self._left = self._another_block()
            port = self._left.pop(0)
            if is_free(port):
                taken.append(port)
        return taken

    def close(self) -> None:
        """Give every block back."""
        for each in self._held:
            each.close()
        self._held.clear()
        self._left.clear()

    def __enter__(self) -> "PortBlocks":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _another_block(self) -> list[int]:
        last = int(EPHEMERAL_RANGE.read_text().split()[0]) - BLOCK_PORTS
        starts = list(range(FIRST_PORT, last + 1, BLOCK_PORTS))
        self._chance.shuffle(starts)
        for start in starts:
            holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                holder.bind(f"\0primacy-ports-{start}")
            except OSError:
                holder.close()  # Somebody else's.
                continue
            self._held.append(holder)
            return list(range(start, start + BLOCK_PORTS))
        raise Unavailable(
            f"all {len(starts)} blocks of ports from {FIRST_PORT} to {last} are held",
            hint="End what runs here, or lower net.ipv4.ip_local_port_range.",
        )


def is_free(port: int) -> bool:
    """Whether a server could bind it now, on any address."""
    with socket.socket() as door:
        try:
            door.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True
