"""A command's side of an agent's HTTP API: one request, one typed answer, or the agent's own error.

Blocks: call it in a thread. The standard library's client is enough for one request per command.
"""

import http.client
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError, URLError

import msgspec

from primacy.cluster.control.answers import Problem
from primacy.config import ConfigRejected, token_in, token_problems
from primacy.errors import Conflict, OutcomeUnknown, PrimacyError, Rejected, Unavailable

T = TypeVar("T")

READ_WITHIN_S = 15.0
"""Longer than an agent looks for the store's majority before it answers without one."""

ANSWER_BYTES_MAX = 16 << 20
"""A longer answer is none of ours."""


@dataclass(frozen=True, slots=True)
class Remote:
    url: str
    token: str | None = None

    @classmethod
    def at(cls, url: str, token_file: Path | None) -> "Remote":
        """`Rejected` for an address that is none, or a token that cannot be used."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Rejected(
                f"--api {url!r} is no address of an agent",
                hint="It looks like http://10.0.0.1:7104.",
            )
        token = None if token_file is None else read_token(token_file)
        return cls(url.rstrip("/"), token)

    def get(self, path: str, query: Mapping[str, str], kind: type[T]) -> T:
        asked = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        return self._answer(self._request(asked), kind, READ_WITHIN_S)

    def post(self, path: str, body: Mapping[str, object], kind: type[T], within_s: float) -> T:
        request = self._request(path)
        request.data = msgspec.json.encode(body)
        request.add_header("Content-Type", "application/json")
        return self._answer(request, kind, within_s)

    def _request(self, path: str) -> urllib.request.Request:
        request = urllib.request.Request(self.url + path)
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        return request

    def _answer(self, request: urllib.request.Request, kind: type[T], within_s: float) -> T:
        is_change = request.data is not None
        try:
            with urllib.request.urlopen(request, timeout=within_s) as response:
                raw: bytes = response.read(ANSWER_BYTES_MAX)
                status = response.status
        except HTTPError as error:
            with error:
                raw = error.read(ANSWER_BYTES_MAX)
                raise _refusal(error.code, raw, self.url, is_change=is_change) from None
        except (URLError, OSError, http.client.HTTPException) as error:
            raise _silence(self.url, error, is_change=is_change) from None
        if status == HTTPStatus.ACCEPTED:
            raise _refusal(status, raw, self.url, is_change=is_change)
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Rejected(
                f"{self.url} answered what is no {kind.__name__}: {error}",
                hint="Is it the API of an agent of this version?",
            ) from None


def read_token(path: Path) -> str:
    """`ConfigRejected` where there is none, or where others may read it."""
    problems = list(token_problems(path, "--token-file"))
    if problems:
        raise ConfigRejected("the command line", tuple(problems))
    return token_in(path)


def _refusal(status: int, raw: bytes, url: str, *, is_change: bool) -> PrimacyError:
    """The agent's own words, in the branch of errors that they belong to."""
    try:
        problem = msgspec.json.decode(raw, type=Problem)
    except (msgspec.DecodeError, msgspec.ValidationError):
        problem = Problem(error=f"{url} answered {status}", hint="Is it an agent's API?")
        if is_change and status not in range(400, 500):
            return OutcomeUnknown(problem.error, hint="See `primacy history`.")
    if status == HTTPStatus.ACCEPTED:
        return OutcomeUnknown(problem.error, hint=problem.hint)
    if status == HTTPStatus.CONFLICT:
        return Conflict(problem.error, hint=problem.hint)
    if status in range(400, 500):
        return Rejected(problem.error, hint=problem.hint)
    return Unavailable(problem.error, hint=problem.hint)


def _silence(url: str, error: Exception, *, is_change: bool) -> PrimacyError:
    """Nobody was there: nothing was asked. The answer was lost: who knows."""
    reason = error.reason if isinstance(error, URLError) else error
    was_asked = not isinstance(error, URLError)
    if is_change and was_asked:
        return OutcomeUnknown(
            f"the answer of {url} was lost: {reason}", hint="See `primacy history`."
        )
    return Unavailable(
        f"{url} does not answer: {reason}",
        hint="Name another agent, or go through the store: leave --api away.",
    )
