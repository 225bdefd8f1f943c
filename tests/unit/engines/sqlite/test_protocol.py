"""The client's protocol: what goes in comes out, and what exceeds a limit is refused."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.engines.sqlite import protocol
from primacy.engines.sqlite.protocol import (
    Access,
    Branch,
    Cancel,
    Challenge,
    CloseCursor,
    Done,
    End,
    Failure,
    Fetch,
    FromClient,
    FromServer,
    Greeting,
    Kind,
    Login,
    Proof,
    Run,
    ServerRole,
    Statement,
    Value,
    Welcome,
    frame_of,
    from_client,
    from_server,
)
from primacy.errors import Corrupt, Rejected
from primacy.wire import FrameDecoder

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)

CLIENT: dict[str, FromClient] = {
    "login": Login(1, "shop", "app", b"n" * 16),
    "proof": Proof(b"p" * 32),
    "run": Run(
        7,
        [Statement("INSERT INTO t VALUES (?, :b)", [[1, None], {"b": b"\x00"}])],
        begin=Access.WRITE,
        after="a@3:17",
        fresh_ms=0,
        key="00001700000000000-x",
    ),
    "end": End(8, is_commit=True),
    "fetch": Fetch(9, 1),
    "close-cursor": CloseCursor(1),
    "cancel": Cancel(7),
}

SERVER: dict[str, FromServer] = {
    "greeting": Greeting(
        1, "shop", "db", "a", 3, ServerRole.PRIMARY, "10.0.0.1:3306", b"n" * 16, needs_login=True
    ),
    "challenge": Challenge(b"s" * 16, 4096),
    "welcome": Welcome(b"g" * 32),
    "done": Done(
        7,
        ["a"],
        [(1,), (2.5,), ("x",), (b"y",), (None,)],
        4,
        -1,
        0,
        "a@3:17",
        is_in_transaction=False,
    ),
    "failure": Failure(7, Branch.REJECTED, "no such table: t", "See .tables.", 1, "SQLITE_ERROR"),
}


def payload_of(message: FromClient | FromServer) -> bytes:
    (payload,) = FrameDecoder().feed(frame_of(message))
    return payload


@pytest.mark.parametrize("message", CLIENT.values(), ids=CLIENT)
def test_what_a_client_says_arrives_as_it_was(message: FromClient) -> None:
    assert from_client(payload_of(message)) == message


@pytest.mark.parametrize("message", SERVER.values(), ids=SERVER)
def test_what_a_server_says_arrives_as_it_was(message: FromServer) -> None:
    assert from_server(payload_of(message)) == message


@given(st.lists(VALUES, max_size=5))
def test_every_value_of_sqlite_travels_both_ways(values: list[Value]) -> None:
    run = Run(1, [Statement("SELECT ?", [values])])
    assert from_client(payload_of(run)) == run
    done = Done(1, ["a"], [tuple(values)], 0, -1, 0, "", is_in_transaction=False)
    assert from_server(payload_of(done)) == done


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    for read in (from_client, from_server):
        with contextlib.suppress(Corrupt):
            read(noise)


EXCESSIVE = {
    "statements": Run(1, [Statement("SELECT 1", [[]])] * (protocol.STATEMENTS_MAX + 1)),
    "rows of parameters": Run(1, [Statement("X", [[]] * (protocol.EXECUTIONS_MAX + 1))]),
    "characters in one statement": Run(1, [Statement("x" * (protocol.SQL_BYTES_MAX + 1), [[]])]),
    "characters in its idempotency key": Run(1, [], key="x" * (protocol.KEY_BYTES_MAX + 1)),
}


@pytest.mark.parametrize(("what", "run"), EXCESSIVE.items(), ids=EXCESSIVE)
def test_a_request_beyond_a_limit_is_refused_by_its_name(what: str, run: Run) -> None:
    with pytest.raises(Corrupt, match=what):
        from_client(payload_of(run))


@pytest.mark.parametrize("value", [2**63, True, [1], {"a": 1}, msgspec.msgpack.Ext(1, b"x")])
def test_a_parameter_that_is_no_value_of_sqlite_is_refused(value: object) -> None:
    raw = msgspec.msgpack.encode(["run", 1, [["SELECT ?", [[value]]]]])
    with pytest.raises(Corrupt, match="is no value of SQLite's"):
        from_client(raw)


def test_a_message_above_the_limit_is_not_sent() -> None:
    run = Run(1, [Statement("SELECT ?", [[b"x" * (protocol.REQUEST_BYTES_MAX + 1)]])])
    with pytest.raises(Rejected, match="exceeds the limit of 16777216"):
        frame_of(run, size_max=protocol.REQUEST_BYTES_MAX)


def test_fields_that_a_newer_release_adds_are_passed_over() -> None:
    raw = msgspec.msgpack.encode(["fetch", 1, 2, 3, "new"])
    assert from_client(raw) == Fetch(1, 2, 3)


def test_a_kind_of_error_is_said_only_where_the_code_does_not_say_it() -> None:
    failure = SERVER["failure"]
    assert isinstance(failure, Failure)
    assert failure.kind is Kind.BY_CODE
