"""Causality tokens and idempotency keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.engines.sqlite.tokens import (
    NO_TOKEN,
    Token,
    created_ms_of,
    first_key_at,
    key_at,
    later,
    token_in,
)
from primacy.errors import Rejected


def test_a_token_is_read_as_it_is_written() -> None:
    assert token_in("a@3:17") == Token(3, 17, "a")
    assert str(Token(3, 17, "a")) == "a@3:17"
    assert token_in("") == NO_TOKEN


@pytest.mark.parametrize("text", ["a", "a@3", "@3:1", "a@x:1", "a@3:1-5", "a b@3:1", "a@3:1 "])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="is not a token"):
        token_in(text)


def test_the_later_of_two_tokens_is_of_the_higher_epoch_then_of_the_higher_index() -> None:
    assert later("a@3:17", "b@4:2") == "b@4:2"
    assert later("a@3:17", "a@3:18") == "a@3:18"
    assert later("a@3:17", "") == "a@3:17"


@given(st.integers(0, 10**14 - 1), st.integers(0, 10**14 - 1))
def test_keys_sort_by_their_age(one_ms: int, other_ms: int) -> None:
    one, other = key_at(one_ms, "zzz"), key_at(other_ms, "aaa")
    assert created_ms_of(one) == one_ms
    if one_ms < other_ms:
        assert one < other
        assert one < first_key_at(other_ms) <= other


@pytest.mark.parametrize("key", ["order-4711", "123-x", "00000000000001-", "00000000000001-a b"])
def test_a_key_without_its_time_is_refused(key: str) -> None:
    with pytest.raises(Rejected, match="is not an idempotency key"):
        created_ms_of(key)


def test_a_text_that_is_too_long_makes_no_key() -> None:
    with pytest.raises(Rejected):
        key_at(1, "x" * 200)
