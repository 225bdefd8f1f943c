"""What the end of a log did: whose it is, which tables, and may it be taken back? Pure."""

from dataclasses import dataclass, field

from primacy.engines.sqlite.storage.failures import NotInvertible
from primacy.engines.sqlite.storage.images import DATA, Rows, Step, decode, quoted
from primacy.engines.sqlite.storage.inverse import inverse_of
from primacy.errors import Corrupt
from primacy.replication.log.record import Header

TRANSACTIONS_MAX = 10_000
ROWS_MAX = 100_000
"""Beyond them a copy is as quick, and surer."""

TABLES_MAX = 50
"""Read whole, there and here, to be compared afterwards."""

OWN_TABLES = "_primacy_"


@dataclass(slots=True)
class Tally:
    """Of the records that `add` has been given, in order."""

    count: int = 0
    own_count: int = 0
    """Of them, such as changed nothing of an application: epochs, heartbeats, kept answers."""
    row_count: int = 0
    touched: set[str] = field(default_factory=set)
    """Tables whose rows were changed, primacy's own among them."""
    _obstacle: str = ""

    def add(self, header: Header, payload: bytes) -> bool:
        """Whether it was primacy's own."""
        steps: list[Step] = []
        if header.kind in DATA:
            try:
                steps = decode(payload)
            except Corrupt as error:
                self._hinders(header, error.what)
        tables = {
            map_.name for step in steps if isinstance(step, Rows) for map_ in step.maps.values()
        }
        self._judge(header, steps)
        self.count += 1
        self.row_count += sum(len(step.rows) for step in steps if isinstance(step, Rows))
        self.touched |= tables
        only_rows = all(isinstance(step, Rows) for step in steps)
        is_own = header.kind not in DATA or (
            only_rows and bool(steps) and all(map(_is_own, tables))
        )
        self.own_count += is_own
        return is_own

    @property
    def obstacle(self) -> str:
        """Why they cannot be taken back row by row; empty where they can."""
        if self._obstacle:
            return self._obstacle
        if self.count > TRANSACTIONS_MAX:
            return f"{self.count} transactions, at most {TRANSACTIONS_MAX} are taken back"
        if self.row_count > ROWS_MAX:
            return f"{self.row_count} rows, at most {ROWS_MAX} are taken back"
        if len(self.touched) > TABLES_MAX:
            return f"{len(self.touched)} tables, at most {TABLES_MAX} are compared afterwards"
        return ""

    @property
    def application_tables(self) -> tuple[str, ...]:
        """Quoted."""
        return tuple(sorted(quoted(each) for each in self.touched if not _is_own(each)))

    def _judge(self, header: Header, steps: list[Step]) -> None:
        if self._obstacle or self.row_count > ROWS_MAX:
            return
        try:
            inverse_of(steps)
        except NotInvertible as error:
            self._hinders(header, error.what)

    def _hinders(self, header: Header, what: str) -> None:
        self._obstacle = self._obstacle or f"record {header.point.position}: {what}"


def _is_own(table: str) -> bool:
    return table.lower().startswith(OWN_TABLES)
