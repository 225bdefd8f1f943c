"""Knowing a secret, proven without saying it: what challenge-response doors share. Pure.

Promises  A proof is worth nothing for another purpose, another role or another nonce.
Assumes   Both nonces, and all that the two ends have said, are in `said`. The secret has 32 random
          bytes, so that a proof cannot be turned into it by trying.
"""

import hashlib
import hmac

NONCE_BYTES = 32


def proof_of(secret: bytes, purpose: str, said: bytes) -> str:
    """`purpose` names door and role: neither end's proof can be sent back as the other's."""
    return hmac.new(secret, purpose.encode() + b":" + said, hashlib.sha256).hexdigest()


def is_proof(given: str, expected: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())
