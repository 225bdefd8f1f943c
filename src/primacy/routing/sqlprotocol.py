"""The one thing that a router says in the SQL protocol of the SQLite engine: a failure.

Sent in place of the server's greeting, as the server itself does when it has too many clients; the
driver tries the next host and then this one again. See `docs/protocols/sql.md`.
"""

from typing import assert_never

from primacy.engines.sqlite.protocol import Branch, Failure, frame_of
from primacy.routing.words import Refusal

MESSAGE_CHARACTERS_MAX = 1000


def failure_frame(refusal: Refusal, message: str) -> bytes:
    what = message[:MESSAGE_CHARACTERS_MAX]
    return frame_of(Failure(0, Branch.UNAVAILABLE, what, _hint(refusal)))


def _hint(refusal: Refusal) -> str:
    match refusal:
        case Refusal.NO_DATABASE:
            return "Connect again; `primacy status` says what the cluster waits for."
        case Refusal.TOO_MANY:
            return "Close some connections, or raise router.max_connections."
        case _:
            assert_never(refusal)
