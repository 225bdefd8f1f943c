"""Ports that are handed out stay free until their server binds them."""

import random
import socket

import pytest

from primacy.runtime.ports import EPHEMERAL_RANGE, PortBlocks, is_free

pytestmark = pytest.mark.integration


def test_no_number_is_handed_out_twice_nor_by_the_kernel() -> None:
    first_ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
    with PortBlocks(random.Random(1)) as one, PortBlocks(random.Random(1)) as other:
        found = one.take(100) + other.take(100)
        assert len(set(found)) == 200
        assert max(found) < first_ephemeral


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    with PortBlocks(random.Random(2)) as blocks:
        (first,) = blocks.take(1)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", first + 1))
            taken.listen()
            assert not is_free(first + 1)
            (second,) = blocks.take(1)
        assert second > first + 1


def test_a_closed_object_gives_its_blocks_back() -> None:
    with PortBlocks(random.Random(3)) as blocks:
        before = blocks.take(1)
    with PortBlocks(random.Random(3)) as blocks:
        assert blocks.take(1) == before
