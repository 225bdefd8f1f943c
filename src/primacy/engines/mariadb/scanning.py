"""Reads the text of `mariadb-binlog --verbose`, line by line: what is in a stretch of log. Pure.

#261125 21:17:41 server id 1  end_log_pos 367 CRC32 0xfc.. <tab>GTID 0-1-7 trans
#Q> INSERT INTO shop.t VALUES (1)                   the statement as it was sent
#...<tab>Table_map: `shop`.`t` mapped to number 18
#...<tab>Write_rows: table id 18 flags: STMT_END_F
### INSERT INTO `shop`.`t`
### SET
###   @1=1
#...<tab>Xid = 68

Promises  A transaction without its end is not reported.
"""

import re
from dataclasses import dataclass, field

from primacy.engines.mariadb.gtid import DOMAIN, Gtid, parse
from primacy.engines.mariadb.observe import EpochRow
from primacy.engines.mariadb.orphans import ADDED, GROUP_BEGINS, GROUP_ENDS
from primacy.errors import Corrupt
from primacy.model import Epoch, NodeId

_GTID = re.compile(rb"^#\d+ .*\tGTID (\d+-\d+-\d+)\b(.*)$")
_EVENT = re.compile(rb"^#\d{6} .*\bend_log_pos \d+.*\t([A-Z][A-Za-z_]+)")
_ROWS_OF = re.compile(rb"^### (INSERT INTO|UPDATE|DELETE FROM) (`.*`\.`.*`)$")
_COLUMN = re.compile(rb"^###   @(\d+)=(.*?)(?: /\*.*)?$")
_IMAGES = (b"### SET", b"### WHERE")
_EPOCH_TABLE = b"`primacy`.`epochs`"

UNDOABLE = frozenset(
    """
    Annotate_rows Binlog Delete_compressed_rows Delete_compressed_rows_v Delete_rows Delete_rows_v
    GTID Gtid Rotate Start Stop Table_map Update_compressed_rows Update_compressed_rows_v
    Update_rows Update_rows_v Write_compressed_rows Write_compressed_rows_v Write_rows Write_rows_v
    Xid
    """.split()  # noqa: SIM905 - a list of words is easier to read than twenty quoted lines.
)
"""Events of rows with their images, and what frames them. Everything else (DDL, statements, XA)
has no reverse."""


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction: which rows of which tables it changed."""

    gtid: Gtid
    tables: frozenset[str] = frozenset()
    """Quoted as the log has them: `shop`.`t`."""
    rows: int = 0
    obstacle: str = ""
    """The first event that cannot be reversed; empty where all can."""

    @property
    def is_own(self) -> bool:
        """Only primacy's own rows: heartbeats, markers, epoch rows. Nobody misses them."""
        return bool(self.tables) and all(each.startswith("`primacy`.") for each in self.tables)


@dataclass(slots=True)
class _Open:
    """A transaction whose end has not come yet."""

    gtid: Gtid
    is_group: bool = False
    tables: set[str] = field(default_factory=set)
    rows: int = 0
    obstacle: str = ""


class Scan:
    """Feed it every line; then read what it has found."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.epochs: list[EpochRow] = []
        self.columns: dict[str, int] = {}
        """Of each table: how many columns a row image has. 0 where two images differ."""
        self._open: _Open | None = None
        self._table = ""
        self._image: list[int] = []
        self._is_new_row = False
        self._epoch: dict[int, str] | None = None
        self._interned: dict[frozenset[str], frozenset[str]] = {}

    def feed(self, line: bytes) -> None:
        if line.startswith(b"###"):
            self._feed_row(line)
            return
        self._end_image()
        if (found := _GTID.match(line)) is not None:
            self._begin(parse(found.group(1).decode()), found.group(2))
            return
        transaction = self._open
        if transaction is None:
            return
        if line.startswith(GROUP_BEGINS):
            transaction.is_group = True
        elif self._is_end(transaction, line):
            self._note_event(transaction, line)
            self._end(transaction)
        else:
            self._note_event(transaction, line)

    def _begin(self, gtid: Gtid, flags: bytes) -> None:
        self._open = _Open(gtid)
        if b" ddl" in flags:
            self._open.obstacle = "a change of definitions (DDL)"
        elif b" trans" not in flags:
            self._open.obstacle = "a change outside of transactions"

    def _is_end(self, transaction: _Open, line: bytes) -> bool:
        """A statement that stands alone, such as DDL, is one event; a group has a last one."""
        if not transaction.is_group:
            return b"\tQuery\t" in line
        is_end = line.startswith(GROUP_ENDS) and ADDED not in line
        return is_end or b"\tXid = " in line

    def _note_event(self, transaction: _Open, line: bytes) -> None:
        found = _EVENT.match(line)
        if found is None or transaction.obstacle:
            return
        name = found.group(1).decode()
        if name not in UNDOABLE:
            transaction.obstacle = f"an event of kind {name}"

    def _end(self, transaction: _Open) -> None:
        if transaction.gtid.domain == DOMAIN:
            tables = frozenset(transaction.tables)
            self.changes.append(
                Change(
                    transaction.gtid,
                    self._interned.setdefault(tables, tables),
                    transaction.rows,
                    transaction.obstacle,
                )
            )
        self._open = None

    # ---- rows

    def _feed_row(self, line: bytes) -> None:
        if (column := _COLUMN.match(line)) is not None:
            self._feed_column(int(column.group(1)), column.group(2))
            return
        self._end_image()
        if line.startswith(_IMAGES):
            return
        found = _ROWS_OF.match(line)
        if found is None:
            return
        self._table = found.group(2).decode(errors="replace")
        is_epoch = found.group(1) == b"INSERT INTO" and found.group(2) == _EPOCH_TABLE
        self._epoch = {} if is_epoch else None
        if self._open is not None:
            self._open.tables.add(self._table)
            self._open.rows += 1

    def _feed_column(self, number: int, text: bytes) -> None:
        self._image.append(number)
        if self._epoch is not None:
            self._epoch[number] = text.decode(errors="replace")
            if len(self._epoch) == 3:
                self.epochs.append(_epoch_row(self._epoch))
                self._epoch = None

    def _end_image(self) -> None:
        if not self._image:
            return
        count = len(self._image)
        is_full = self._image == list(range(1, count + 1))
        if self.columns.setdefault(self._table, count) != count or not is_full:
            self.columns[self._table] = 0
        self._image = []


def _epoch_row(columns: dict[int, str]) -> EpochRow:
    try:
        node = NodeId(columns[2].strip("'"))
        return EpochRow(Epoch(int(columns[1])), node, int(columns[3]))
    except (KeyError, ValueError) as error:
        raise Corrupt(
            f"an epoch row in the log cannot be read: {columns}",
            hint="The table primacy.epochs was changed. Clone the node anew.",
        ) from error
