"""Drops pieces of transactions whose beginning `mariadb-binlog` left out. Pure.

A receiver that reconnects in the middle of a transaction begins another relay log: the rest of it
stands at the head of the next file, without its GTID. Where the transaction lies before the start
position, `mariadb-binlog` leaves out its beginning and prints that rest all the same. To a client
that would be a transaction of its own: rows that are there already, under a new GTID.

Promises  What passes between two GTIDs belongs to the first of them. What frames the events
          (formats, rotations, delimiters) always passes.
"""

import re

_EVENT = re.compile(rb"^#\d{6} .*\bend_log_pos \d+.*\t([A-Z][A-Za-z_]+)")
_AT = b"# at "
_FRAME_LINES = (b"DELIMITER", b"# End of log file", b"ROLLBACK /* added by")
FRAMES = frozenset({b"Start", b"Rotate", b"Gtid", b"GTID", b"Stop", b"Binlog", b"Ignorable"})
"""Kinds of events that are no part of a transaction, and the one that begins it. `Gtid` is a list
of positions, `Binlog` a checkpoint."""

GROUP_BEGINS = (b"START TRANSACTION", b"XA START")
GROUP_ENDS = (b"COMMIT", b"ROLLBACK", b"XA PREPARE")
ADDED = b"/* added by"
"""The program ends a transaction that its last file leaves open: the log has no end of it."""


class Orphans:
    """`passes` is asked for every line, in order."""

    def __init__(self) -> None:
        self._is_open = False
        """A GTID has come, and its transaction's end has not."""
        self._is_group = False
        self._ends_with_event = False
        self._is_dropping = False
        self._at = b""
        """The place of the next event: it passes or falls with it."""

    def passes(self, line: bytes) -> list[bytes]:
        """The lines that may go on now."""
        if line.startswith(_AT):
            held = [self._at] if self._at else []
            self._at = line
            self._end_event()
            return held
        place = [self._at] if self._at else []
        self._at = b""
        if (found := _EVENT.match(line)) is not None:
            self._begin_event(found.group(1))
        elif line.startswith(_FRAME_LINES):
            self._is_dropping = False
        if self._is_dropping:
            return []
        self._note(line)
        return [*place, line]

    def _begin_event(self, kind: bytes) -> None:
        self._is_dropping = kind not in FRAMES and not self._is_open
        if kind == b"GTID":
            self._is_open, self._is_group = True, False
        elif kind == b"Query" and self._is_open and not self._is_group:
            self._ends_with_event = True  # A statement that stands alone, such as DDL.

    def _end_event(self) -> None:
        self._is_dropping = False
        if self._ends_with_event and not self._is_group:
            self._is_open = False
        self._ends_with_event = False

    def _note(self, line: bytes) -> None:
        if not self._is_open:
            return
        if line.startswith(GROUP_BEGINS):
            self._is_group = True
        elif self._is_group and line.startswith(GROUP_ENDS) and ADDED not in line:
            self._is_open = False
