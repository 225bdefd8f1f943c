"""What a store declares that it keeps, and what a recipe needs of it. No feature is emulated."""

from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from primacy.coordination.api import Store
from primacy.errors import Rejected


class Guarantee(Enum):
    LINEARIZABLE_READS = "a read sees every write that finished before it began"
    TRANSACTIONS = "several keys are compared and written at one instant"
    FENCING_TOKENS = "a key's create revision grows with each holder, for ever"
    LEASED_KEYS = "the keys of a lease go when it ends, not before"
    ORDERED_WATCHES = "a watch delivers every change once, in order, or says that it cannot"
    EXACTLY_ONCE_WRITES = "a write that is sent again takes effect once"
    SURVIVES_RESTART = "what was acknowledged is there after every process was killed"


class DeclaredStore(Store, Protocol):
    """A store that says what it keeps. The conformance suite holds it to that."""

    @property
    def guarantees(self) -> frozenset[Guarantee]: ...


ALL = frozenset(Guarantee)
IN_MEMORY = ALL - {Guarantee.SURVIVES_RESTART}

EXCLUSION = frozenset(
    {
        Guarantee.LINEARIZABLE_READS,
        Guarantee.TRANSACTIONS,
        Guarantee.FENCING_TOKENS,
        Guarantee.LEASED_KEYS,
        Guarantee.ORDERED_WATCHES,
    }
)
"""What a lock or an election cannot do without."""


def require(store: DeclaredStore, needs: Iterable[Guarantee], *, what: str) -> None:
    """`Rejected` where the store does not keep all that `what` needs."""
    missing = sorted(f"{each.name} ({each.value})" for each in set(needs) - store.guarantees)
    if missing:
        raise Rejected(
            f"{what} needs what this store does not keep: {'; '.join(missing)}",
            hint="Use another store.",
        )
