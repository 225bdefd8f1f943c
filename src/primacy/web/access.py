"""Who may ask for changes. Reading needs no token."""

import hmac
from dataclasses import dataclass
from http import HTTPStatus

BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Access:
    token: str | None
    is_loopback: bool
    """The door listens on loopback only: without a token, whoever is on this host may ask."""

    def refusal(self, authorization: str | None) -> tuple[HTTPStatus, str, str] | None:
        """The status, what is wrong, and what to do; None: go ahead."""
        if self.token is None:
            if self.is_loopback:
                return None
            return (
                HTTPStatus.FORBIDDEN,
                "no token is configured, and this door is open beyond loopback",
                "Set api.token_file on every node, or use the command line on one of them.",
            )
        given = authorization or ""
        if not given.lower().startswith(BEARER):
            return (
                HTTPStatus.UNAUTHORIZED,
                "requests that change something need the token",
                "Send the header Authorization: Bearer TOKEN.",
            )
        if not hmac.compare_digest(given[len(BEARER) :].strip().encode(), self.token.encode()):
            return (HTTPStatus.UNAUTHORIZED, "the token is wrong", "See api.token_file.")
        return None
