"""Who may ask for changes. Reading needs no token."""

import hmac
import ipaddress
import urllib.parse
from dataclasses import dataclass
from http import HTTPStatus

BEARER = "bearer "

Refusal = tuple[HTTPStatus, str, str]
"""The status, what is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    token: str | None
    is_loopback: bool
    """The door listens on loopback only: without a token, whoever is on this host may ask."""

    def refusal(self, authorization: str | None, host: str | None) -> Refusal | None:
        """None: go ahead. Both are headers, as they came."""
        return self._untold(host) if self.token is None else self._told(authorization, self.token)

    def _untold(self, host: str | None) -> Refusal | None:
        if not self.is_loopback:
            return (
                HTTPStatus.FORBIDDEN,
                "no token is configured, and this door is open beyond loopback",
                "Set api.token_file on every node, or use the command line on one of them.",
            )
        if not _names_loopback(host):
            return (  # A name that somebody points to loopback, for a browser on this host to use.
                HTTPStatus.FORBIDDEN,
                "no token is configured, and the request was sent to a name, not to loopback",
                "Ask http://127.0.0.1, or set api.token_file.",
            )
        return None

    def _told(self, authorization: str | None, token: str) -> Refusal | None:
        given = authorization or ""
        if not given.lower().startswith(BEARER):
            return (
                HTTPStatus.UNAUTHORIZED,
                "requests that change something need the token",
                "Send the header Authorization: Bearer TOKEN.",
            )
        if not hmac.compare_digest(given[len(BEARER) :].strip().encode(), token.encode()):
            return (HTTPStatus.UNAUTHORIZED, "the token is wrong", "See api.token_file.")
        return None


def _names_loopback(host: str | None) -> bool:
    try:
        name = urllib.parse.urlsplit(f"//{host or ''}").hostname or ""
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return (host or "").partition(":")[0] == "localhost"
