"""What ties a client's requests together: causality tokens and idempotency keys. Pure.

A **token** is the GTID of one transaction, `node@epoch:index`: a read that carries it waits until
it can see that transaction.

An **idempotency key** carries the time of its creation, `milliseconds-text`. So a server that has
forgotten all keys up to a time can tell: a key from before is old, and is never executed again; a
key from later that it does not know is new. No clock has to be right for that: the forgotten time
is a row of the database, and only what it says counts.
"""

import re
from typing import NamedTuple

from primacy.engines.sqlite.protocol import KEY_BYTES_MAX
from primacy.errors import Rejected

_TIME_DIGITS = 14
"""Milliseconds since 1970, with leading zeros: keys sort by their age. Enough until 5138."""

_KEY = re.compile(rf"(\d{{{_TIME_DIGITS}}})-([!-~]{{1,{KEY_BYTES_MAX - _TIME_DIGITS - 1}}})")
_TOKEN = re.compile(r"([^@:\s]{1,100})@(\d{1,18}):(\d{1,18})")


class Token(NamedTuple):
    """One transaction. The order is that of the log: by epoch, then by place."""

    epoch: int
    place: int
    """Its index in the log."""
    node: str

    def __str__(self) -> str:
        return f"{self.node}@{self.epoch}:{self.place}"


NO_TOKEN = Token(0, 0, "")


def token_in(text: str) -> Token:
    """`Rejected`: it is none. Empty: `NO_TOKEN`."""
    if not text:
        return NO_TOKEN
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise Rejected(
            f"{text[:100]!r} is not a token", hint="Pass on what a commit answered, as it is."
        )
    return Token(int(found.group(2)), int(found.group(3)), found.group(1))


def later(one: str, other: str) -> str:
    """Of two tokens the one that has seen more."""
    return max(one, other, key=lambda each: token_in(each)[:2])


def key_at(created_ms: int, text: str) -> str:
    """A key from its time of creation and a text that is different for each request. `Rejected`
    where the text does not fit."""
    key = f"{created_ms:0{_TIME_DIGITS}d}-{text}"
    created_ms_of(key)
    return key


def created_ms_of(key: str) -> int:
    """`Rejected`: not a key."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise Rejected(
            f"{key[:100]!r} is not an idempotency key",
            hint="Make one with primacy.driver.idempotency_key(text): the time of its creation "
            "and up to 185 visible ASCII characters.",
        )
    return int(found.group(1))


def first_key_at(created_ms: int) -> str:
    """Below every key of that moment, and above every key from before."""
    return f"{created_ms:0{_TIME_DIGITS}d}"
