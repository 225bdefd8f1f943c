"""What a connection and a cursor show of themselves: the same for both drivers, and no effect."""

from typing import Any

from primacy.driver.rows import Described, RowFactory
from primacy.driver.session import Results, Session
from primacy.engines.sqlite.protocol import Row


class ShownSession:
    """Of a connection."""

    _session: Session

    @property
    def in_transaction(self) -> bool:
        return self._session.core.is_in_transaction

    @property
    def total_changes(self) -> int:
        """Rows changed through this connection."""
        return self._session.total_changes

    @property
    def token(self) -> str:
        """Of the newest transaction that this connection wrote or saw. Its own reads wait for it,
        on whichever server they land."""
        return self._session.core.token

    @token.setter
    def token(self, token: str) -> None:
        """Another connection's: reads here wait until they can see what it has seen."""
        self._session.core.see(token)

    @property
    def server(self) -> str:
        """The node that it is connected to. Empty: to none now; the next call finds one."""
        greeting = self._session.core.greeting
        return greeting.node if greeting is not None else ""


class ShownResults:
    """Of a cursor."""

    def __init__(self, session: Session, row_factory: RowFactory | None) -> None:
        self.arraysize = 1
        self.row_factory = row_factory
        self._session = session
        self._results = Results()

    @property
    def description(self) -> Described | None:
        return self._results.description

    @property
    def rowcount(self) -> int:
        return self._results.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._results.lastrowid

    def _made(self, row: Row) -> Any:  # Any: what the row factory makes.
        return row if self.row_factory is None else self.row_factory(self, row)
