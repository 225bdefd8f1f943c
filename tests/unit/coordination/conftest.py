"""A log of one: entries for the store's state, one after the other."""

from dataclasses import dataclass, field

import pytest

from primacy.coordination.api import Txn
from primacy.coordination.embedded.commands import (
    Applied,
    Body,
    Command,
    Commit,
    OpenSession,
    SessionId,
    Write,
    encoded,
)
from primacy.coordination.embedded.kv import Kv
from primacy.model import LogIndex, Term


@dataclass
class Log:
    """Applies commands to `kv` as the next entries."""

    kv: Kv = field(default_factory=Kv)
    session: SessionId | None = None
    sequence: int = 0

    def apply(self, command: Command | None) -> Applied:
        data = b"" if command is None else encoded(command)
        return self.kv.apply(LogIndex(self.kv.index + 1), Term(1), data)

    def write(self, body: Body) -> Applied:
        if self.session is None:
            self.apply(OpenSession())
            self.session = SessionId(self.kv.index)
        self.sequence += 1
        return self.apply(Write(self.session, self.sequence, 1, body))

    def fresh_write(self, body: Body) -> Applied:
        """Like `write`, and earlier answers are let go."""
        if self.session is None:
            return self.write(body)
        self.sequence += 1
        return self.apply(Write(self.session, self.sequence, self.sequence, body))

    def txn(self, txn: Txn) -> Applied:
        return self.fresh_write(Commit(txn))


@pytest.fixture
def log() -> Log:
    return Log()
