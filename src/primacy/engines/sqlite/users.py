"""The users file, who may connect: read by the server at its start, and by who checks it before."""

from pathlib import Path

from primacy.engines.sqlite.scram import Verifier, verifiers_in
from primacy.errors import Rejected

USERS_BYTES_MAX = 1 << 20


def users_in(path: Path) -> dict[str, Verifier]:
    """`Rejected` says which line is wrong; `OSError` where it cannot be read."""
    with path.open("rb") as file:
        raw = file.read(USERS_BYTES_MAX + 1)
    if len(raw) > USERS_BYTES_MAX:
        raise Rejected(
            f"{path.name} is larger than {USERS_BYTES_MAX} bytes", hint="Name another file."
        )
    return verifiers_in(raw.decode(errors="replace"), source=path.name)
