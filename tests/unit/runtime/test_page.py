"""The deadline page: its bytes, its transitions, and what a reader refuses."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from primacy.errors import Conflict, Corrupt, Unavailable
from primacy.runtime.page import (
    NO_PAGE,
    PAGE_BYTES,
    Page,
    PageReader,
    PageState,
    PageWriter,
    close_page,
    decode,
)
from primacy.runtime.processes import ProcessName, boot_id

GUARD = ProcessName(4711, 99)


class Now:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.ns = 1_000

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "page"


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def writer(path: Path) -> Iterator[PageWriter]:
    with PageWriter(path, guard=GUARD) as writer:
        yield writer


@pytest.fixture
def reader(path: Path, writer: PageWriter, now: Now) -> Iterator[PageReader]:
    reader = PageReader(path, now_ns=now)
    yield reader
    reader.close()


def test_a_page_of_64_bytes_survives_the_round_trip() -> None:
    page = Page(
        boot=boot_id(), guard=GUARD, state=PageState.OPEN, epoch=41, deadline_ns=7, sequence=9
    )
    assert len(page.encode()) == PAGE_BYTES
    assert decode(page.encode()) == page


def test_every_flipped_bit_is_noticed() -> None:
    whole = Page(boot=boot_id(), state=PageState.OPEN, epoch=41, deadline_ns=7).encode()
    for place in range(PAGE_BYTES * 8):
        raw = bytearray(whole)
        raw[place // 8] ^= 1 << (place % 8)
        assert decode(bytes(raw)) is None


def test_only_an_open_page_before_its_deadline_permits(
    writer: PageWriter, reader: PageReader, now: Now
) -> None:
    assert not reader.permits(0)
    writer.arm(5, 2_000, now_ns=now.ns)
    assert not reader.permits(5)
    writer.open(5, now_ns=now.ns)
    assert reader.permits(5)
    assert reader.left_ns(5) == 1_000
    assert not reader.permits(4)
    assert not reader.permits(6)
    now.ns = 1_999
    assert reader.permits(5)
    now.ns = 2_000
    assert not reader.permits(5)
    writer.extend(5, 3_000)
    assert reader.permits(5)
    writer.close(5)
    assert not reader.permits(5)


def test_a_page_of_another_boot_permits_nothing(
    path: Path, writer: PageWriter, reader: PageReader, now: Now
) -> None:
    writer.arm(5, 2_000, now_ns=now.ns)
    writer.open(5, now_ns=now.ns)
    assert reader.permits(5)
    path.write_bytes(replace(writer.page, boot=bytes(16)).encode())
    assert not reader.permits(5)


def test_a_torn_page_counts_as_closed_and_recovers_when_it_is_whole(
    path: Path, writer: PageWriter, reader: PageReader, now: Now
) -> None:
    writer.arm(5, 2_000, now_ns=now.ns)
    writer.open(5, now_ns=now.ns)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert reader.read() == NO_PAGE
    assert not reader.permits(5)
    path.write_bytes(whole)
    assert reader.permits(5)


def test_closed_is_final_for_this_guard_and_the_next(path: Path, now: Now) -> None:
    with PageWriter(path, guard=GUARD) as writer:
        writer.arm(5, 2_000, now_ns=now.ns)
        writer.close(5)
        with pytest.raises(Conflict, match="closed is final"):
            writer.arm(5, 2_000, now_ns=now.ns)
        with pytest.raises(Conflict, match="closed is final"):
            writer.open(4, now_ns=now.ns)
        writer.arm(6, 2_000, now_ns=now.ns)
        writer.open(6, now_ns=now.ns)
    with PageWriter(path, guard=GUARD) as successor:
        assert successor.page.state is PageState.CLOSED
        with pytest.raises(Conflict, match="closed is final"):
            successor.arm(6, 2_000, now_ns=now.ns)
        successor.arm(7, 2_000, now_ns=now.ns)


def test_a_torn_page_still_tells_the_next_guard_its_epoch(path: Path, now: Now) -> None:
    with PageWriter(path, guard=GUARD) as writer:
        writer.arm(5, 2_000, now_ns=now.ns)
    torn = bytearray(path.read_bytes())
    torn[50] ^= 0xFF
    path.write_bytes(bytes(torn))
    with (
        PageWriter(path, guard=GUARD) as successor,
        pytest.raises(Conflict, match="closed is final"),
    ):
        successor.arm(5, 2_000, now_ns=now.ns)


def test_a_refused_transition_changes_nothing(writer: PageWriter, now: Now) -> None:
    before = writer.page
    with pytest.raises(Conflict, match="has passed"):
        writer.arm(1, now.ns, now_ns=now.ns)
    with pytest.raises(Conflict, match="not armed"):
        writer.open(1, now_ns=now.ns)
    with pytest.raises(Conflict, match="not armed"):
        writer.extend(1, 5_000)
    with pytest.raises(Conflict, match="never armed"):
        writer.close(1)
    assert writer.page == before


def test_a_lower_extension_changes_nothing(writer: PageWriter, now: Now) -> None:
    writer.arm(1, 3_000, now_ns=now.ns)
    writer.extend(1, 2_000)
    assert writer.page.deadline_ns == 3_000


def test_a_page_has_one_writer(path: Path, writer: PageWriter) -> None:
    with pytest.raises(Conflict, match="another guard holds"):
        PageWriter(path, guard=GUARD)
    with pytest.raises(Conflict, match="another guard holds"):
        close_page(path)


def test_the_page_of_a_dead_guard_can_be_closed(path: Path, now: Now) -> None:
    with PageWriter(path, guard=GUARD) as writer:
        writer.arm(5, 2_000, now_ns=now.ns)
        writer.open(5, now_ns=now.ns)
    reader = PageReader(path, now_ns=now)
    assert reader.permits(5)
    close_page(path)
    assert not reader.permits(5)
    assert reader.read().highest_closed == 5
    reader.close()


def test_a_file_that_is_no_page_is_refused(path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        PageReader(path)
    path.write_bytes(b"something else")
    with pytest.raises(Corrupt, match="14 bytes"):
        PageWriter(path, guard=GUARD)
    assert path.read_bytes() == b"something else"
    os.truncate(path, 0)
    PageWriter(path, guard=GUARD).release()
