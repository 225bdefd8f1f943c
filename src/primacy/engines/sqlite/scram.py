"""The login: both ends prove that they know a password, and neither sends it. Pure.

Source    RFC 5802 and 7677 (SCRAM-SHA-256), with this protocol's own messages instead of its text.
Promises  Who reads the users' file, or listens, cannot log in by what he learned, short of
          guessing the password. A server that does not know the user cannot pose as one that does.
Does not  Protect what follows: without TLS, whoever stands in between reads it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

from primacy.errors import Rejected

ITERATIONS = 4096
"""As RFC 7677 asks. A guess costs so many hashes; choose passwords that nobody guesses."""
ITERATIONS_MAX = 100_000
"""A client spends no more on a server that it does not know yet: about 50 ms."""

SALT_BYTES = 16
_SCHEME = "SCRAM-SHA-256"


@dataclass(frozen=True, slots=True)
class Verifier:
    """What the server keeps of a user."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __str__(self) -> str:
        """`SCRAM-SHA-256$4096:salt$stored:server`, as PostgreSQL writes it."""
        salt, stored, server = (
            base64.b64encode(each).decode()
            for each in (self.salt, self.stored_key, self.server_key)
        )
        return f"{_SCHEME}${self.iterations}:{salt}${stored}:{server}"


def verifier_of(password: str, *, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
    salted = _salted(password, salt, iterations)
    stored_key = hashlib.sha256(_mac(salted, b"Client Key")).digest()
    return Verifier(salt, iterations, stored_key, _mac(salted, b"Server Key"))


def verifiers_in(text: str, *, source: str) -> dict[str, Verifier]:
    """A users' file: `name verifier` on each line; `#` begins a comment. `Rejected`: line."""
    users: dict[str, Verifier] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        verifier = _parsed(words[1]) if len(words) == 2 else None
        if verifier is None:
            raise Rejected(
                f"{source}, line {number}: not a name and a {_SCHEME} verifier",
                hint="Make lines for it with `primacy sql --new-user NAME`.",
            )
        users[words[0]] = verifier
    return users


def unknown_user(user: str, *, secret: bytes) -> Verifier:
    """What is answered for a user that does not exist: the same salt each time, and no password
    fits, so that nobody learns which names exist."""
    key = _mac(secret, user.encode())
    return Verifier(key[:SALT_BYTES], ITERATIONS, key, key)


def proof_of(password: str, *, salt: bytes, iterations: int, said: bytes) -> tuple[bytes, bytes]:
    """The client's proof, and the signature that the true server answers with."""
    if not 1 <= iterations <= ITERATIONS_MAX:
        raise Rejected(
            f"the server asks for {iterations} iterations, at most {ITERATIONS_MAX} are done",
            hint="Is it the right server? Make the user's verifier again.",
        )
    salted = _salted(password, salt, iterations)
    client_key = _mac(salted, b"Client Key")
    signature = _mac(hashlib.sha256(client_key).digest(), said)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return proof, _mac(_mac(salted, b"Server Key"), said)


def signature_for(verifier: Verifier, proof: bytes, *, said: bytes) -> bytes | None:
    """The server's answer to a right proof. None: the password is wrong."""
    signature = _mac(verifier.stored_key, said)
    if len(proof) != len(signature):
        return None
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    if not hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key):
        return None
    return _mac(verifier.server_key, said)


def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _parsed(text: str) -> Verifier | None:
    found = re.fullmatch(rf"{_SCHEME}\$(\d{{1,6}}):([^$:]+)\$([^$:]+):([^$:]+)", text)
    if found is None:
        return None
    try:
        salt, stored, server = (
            base64.b64decode(each, validate=True) for each in found.groups()[1:]
        )
    except binascii.Error:
        return None
    iterations = int(found.group(1))
    is_sound = 1 <= iterations <= ITERATIONS_MAX and len(stored) == len(server) == 32
    return Verifier(salt, iterations, stored, server) if is_sound else None
