"""The control protocol: what goes in comes out, and the rest is refused under its number."""

import contextlib
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from primacy.engines.sqlite import control
from primacy.engines.sqlite.control import (
    REQUEST_BYTES_MAX,
    Copied,
    Cut,
    Done,
    ErrorBranch,
    Failed,
    Observe,
    Reply,
    Request,
    Shown,
    Snapshot,
    Sums,
    failed,
    raised,
    reply_frame,
    reply_in,
    request_frame,
    request_in,
)
from primacy.errors import (
    Conflict,
    Corrupt,
    LeaseLost,
    OutcomeUnknown,
    PrimacyError,
    Rejected,
    Unavailable,
)
from primacy.model import NodeId
from primacy.replication.log.record import ORIGIN_POINT
from primacy.wire import FrameDecoder

NUMBERS = st.integers(0, 2**63 - 1)
REQUESTS = st.one_of(*map(st.from_type, get_args(Request)))
REPLIES = st.one_of(*map(st.from_type, get_args(Reply)))

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A machine that does much else makes them slowly."""


def payload_of(frame: bytes) -> bytes:
    (payload,) = FrameDecoder().feed(frame)
    return payload


def is_whole(message: object) -> bool:
    """Without what is equal to nothing, and within 64 bits."""
    try:
        return bool(msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message)))
    except (OverflowError, UnicodeEncodeError):
        return False


def same(first: object, second: object) -> bool:
    """NaN travels too; only `repr` calls it equal."""
    return type(first) is type(second) and repr(first) == repr(second)


@PATIENT
@given(NUMBERS, REQUESTS.filter(is_whole))
def test_what_an_agent_asks_arrives_as_it_was(number: int, request: Request) -> None:
    got_number, got = request_in(payload_of(request_frame(number, request)))
    assert got_number == number
    assert same(got, request)


@PATIENT
@given(NUMBERS, REPLIES.filter(is_whole))
def test_what_a_server_answers_arrives_as_it_was(number: int, reply: Reply) -> None:
    got_number, got = reply_in(payload_of(reply_frame(number, reply)))
    assert got_number == number
    assert same(got, reply)


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    for read in (request_in, reply_in):
        with contextlib.suppress(Corrupt):
            read(noise)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "from-a-later-release"},
        {"type": "cut"},
        {"type": "cut", "after": "ten"},
        {"type": "done", "index": 1},
        7,
    ],
    ids=["unknown", "incomplete", "of another type", "a reply", "no message"],
)
def test_a_request_that_is_not_understood_is_answered_under_its_number(message: object) -> None:
    number, reply = request_in(msgspec.msgpack.encode((41, message)))
    assert number == 41
    assert isinstance(reply, Failed)
    assert reply.branch is ErrorBranch.REJECTED
    assert "same release" in reply.hint


def test_a_field_from_a_later_release_is_passed_over() -> None:
    message = {"type": "cut", "after": 5, "why": "later"}
    assert request_in(msgspec.msgpack.encode((1, message))) == (1, Cut(after=5))


def test_what_has_no_number_ends_the_connection() -> None:
    with pytest.raises(Corrupt, match="cannot be read"):
        request_in(msgspec.msgpack.encode(Observe()))


def test_a_reply_that_nobody_knows_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="cannot be read"):
        reply_in(msgspec.msgpack.encode((1, {"type": "from-a-later-release"})))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unavailable("it is away", hint="Wait."), Unavailable),
        (OutcomeUnknown("the answer is lost", hint="Read."), OutcomeUnknown),
        (Conflict("it reigns", hint="Demote it."), Conflict),
        (LeaseLost("it ended", hint="Stop."), Conflict),
        (Rejected("no such thing", hint="Fix it."), Rejected),
        (Corrupt("byte 7", hint="Clone it."), Rejected),
    ],
)
def test_an_error_keeps_its_branch_and_its_words(
    error: PrimacyError, kind: type[PrimacyError]
) -> None:
    (_, reply) = reply_in(payload_of(reply_frame(3, failed(error))))
    assert isinstance(reply, Failed)
    again = raised(reply)
    assert type(again) is kind
    assert (again.what, again.hint) == (error.what, error.hint)


def test_a_request_larger_than_its_limit_is_not_sent() -> None:
    with pytest.raises(Rejected, match="exceeds the limit"):
        request_frame(1, Snapshot(name="x", path="y" * REQUEST_BYTES_MAX))


def test_every_request_says_what_it_does_and_no_two_share_a_name() -> None:
    kinds = get_args(Request)
    tags = [each.__struct_config__.tag for each in (*kinds, *get_args(Reply))]
    assert len(set(tags)) == len(tags)
    for kind in kinds:
        assert kind.__doc__ is not None
        assert kind.__doc__.startswith("-> `"), kind


def test_the_smallest_picture_is_one_of_a_server_that_rests() -> None:
    shown = Shown(
        cluster="shop",
        node=NodeId("a"),
        role=control.RoleNow.RESTING,
        first=ORIGIN_POINT,
        end=ORIGIN_POINT,
        durable=ORIGIN_POINT,
        applied=ORIGIN_POINT,
        position_text="",
    )
    assert (shown.doors, shown.writes) == (control.Doors.CLOSED, control.Writes.NONE)
    assert (shown.upstream, shown.attached, shown.waits_at) == (None, (), 0)
    assert {Done, Copied, Sums} < set(get_args(Reply))
