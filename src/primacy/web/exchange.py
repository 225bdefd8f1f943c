"""One request and its answer: bodies and parameters in, JSON out, and every error as its code."""

import asyncio
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from primacy.cluster.control.answers import Problem
from primacy.errors import (
    Conflict,
    NotFound,
    OutcomeUnknown,
    PrimacyError,
    Rejected,
    Unavailable,
    Withdrawn,
)
from primacy.web.health import Mode
from primacy.web.lag import LagMax, lag_max

BODY_BYTES_MAX = 16 * 1024
BODY_WITHIN_S = 5.0
"""How long a body may take to arrive."""

JSON = "application/json"


class Refused(HTTPException):
    def __init__(self, status: HTTPStatus, error: str, hint: str) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else None
        super().__init__(status, detail=error, headers=headers)
        self.hint = hint


async def whole_body(request: Request) -> bytes:
    """The body, within its limits."""
    taken = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for piece in request.stream():
                taken += piece
                if len(taken) > BODY_BYTES_MAX:
                    raise Refused(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"the body has more than {BODY_BYTES_MAX} bytes",
                        "No request of this API is that long.",
                    )
    except TimeoutError:
        raise Refused(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the body did not arrive within {BODY_WITHIN_S:.0f} s",
            "Send it at once.",
        ) from None
    return bytes(taken)


def as_response(answer: msgspec.Struct, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(answer), status_code=status, media_type=JSON)


def of_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, PrimacyError):
        raise error
    return as_response(Problem(error=error.what, hint=error.hint), _status_of(error))


def _status_of(error: PrimacyError) -> HTTPStatus:
    match error:
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case Rejected():
            return HTTPStatus.BAD_REQUEST
        case Conflict() | Withdrawn():
            return HTTPStatus.CONFLICT
        case OutcomeUnknown():
            return HTTPStatus.ACCEPTED
        case Unavailable() | _:
            return HTTPStatus.SERVICE_UNAVAILABLE


def of_http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    hint = error.hint if isinstance(error, Refused) else "See /openapi.json."
    response = as_response(Problem(error=error.detail, hint=hint), HTTPStatus(error.status_code))
    response.headers.update(error.headers or {})
    return response


def path_of(request: Request) -> str:
    """Of the request line alone: `request.url` would also read what the Host header says."""
    path: str = request.scope["path"]
    return path


def lag_of(request: Request) -> LagMax | None:
    text = request.query_params.get("lag")
    return None if text is None else lag_max(text)


def mode_of(request: Request) -> Mode:
    match request.query_params.get("mode", "apply"):
        case "apply":
            return "apply"
        case "write":
            return "write"
        case other:
            raise Rejected(f"mode={other[:40]!r} is none", hint="Say apply or write.")


def count_of(request: Request, name: str, *, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most:
        return int(text)
    raise Rejected(f"{name}={text[:40]!r} is no number from 1 to {most}", hint="Correct it.")
