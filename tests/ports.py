"""Free ports for the tests, held by this test process until it ends: no two runs collide."""

import atexit
import random

from primacy.model import Address
from primacy.runtime.ports import PortBlocks

LOOPBACK = "127.0.0.1"

_BLOCKS = PortBlocks(random.Random())
atexit.register(_BLOCKS.close)


def free_ports(count: int) -> list[int]:
    return _BLOCKS.take(count)


def free_addresses(count: int) -> list[Address]:
    return [Address(LOOPBACK, port) for port in free_ports(count)]
