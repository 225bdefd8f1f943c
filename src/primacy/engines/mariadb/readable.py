"""A log in plain words: each transaction with its statements as they were sent, and its rows. Pure.

The rows are the truth; a statement stands there as its client wrote it, without the default
database, the variables and the clock of its session. So nothing here is meant to be piped into a
server unread: `transactions.sql` beside it is.
"""

import re

_GTID = re.compile(
    rb"^#(\d{2})(\d{2})(\d{2}) +(\d+:\d+:\d+) server id (\d+) .*\tGTID (\d+-\d+-\d+)"
)
_QUERY = re.compile(rb"^#\d{6} .*\tQuery\t")
_STATEMENT = b"#Q> "

HEAD = (
    b"-- Transactions that lost their place in the history of the cluster.\n"
    b"-- `as sent`: the statement of the client. Below it the rows that it changed; @1 is their\n"
    b"-- first column. docs/guides/diverged.md says how to bring them back.\n"
)


class Readable:
    """Feed it the lines of `mariadb-binlog --verbose`; it answers with the lines to write."""

    def __init__(self) -> None:
        self._is_begun = False
        self._is_query = False

    def feed(self, line: bytes) -> list[bytes]:
        if (found := _GTID.match(line)) is not None:
            year, month, day, time, server, gtid = found.groups()
            self._is_query = False
            head = [] if self._is_begun else [HEAD]
            self._is_begun = True
            when = b"20%b-%b-%b %b" % (year, month, day, time)
            return [*head, b"\n-- transaction %b, %b, server %b\n" % (gtid, when, server)]
        if not self._is_begun:
            return []
        if _QUERY.match(line):
            self._is_query = True
            return []
        if line.startswith(_STATEMENT):
            return [b"--   as sent: %b\n" % line[len(_STATEMENT) :]]
        if line.startswith(b"### "):
            return [b"%b\n" % line[4:]]
        if line.startswith(b"# at "):
            self._is_query = False
        elif self._is_query and _is_said(line):
            return [b"%b\n" % line]
        return []


def _is_said(line: bytes) -> bool:
    """Of a statement in the log: not the variables that it needs, nor what ends it."""
    return not line.startswith((b"SET @@", b"SET TIMESTAMP", b"/*!", b"#", b"START TRANSACTION"))
