"""A door that cannot be opened says which one, where, and what to do about it. The one place."""

from collections.abc import Iterator
from contextlib import contextmanager

from primacy.errors import Rejected
from primacy.model import Address

OTHER_ADDRESS = "Stop what uses the port, or configure another address for this node."


@contextmanager
def listening(where: Address, *, door: str = "", hint: str = OTHER_ADDRESS) -> Iterator[None]:
    """Around what listens there. `door` begins the message: "the pull door"."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise Rejected(f"{door} cannot listen on {where}: {why}".lstrip(), hint=hint) from error
