"""Where the files of one node are, as far as it is the same for all engines.

STATE_DIR/data/            the data directory, with our mark `primacy.json` in it
STATE_DIR/incoming/        a data directory that is being made
STATE_DIR/old-data/        what a clone set aside
STATE_DIR/copies/          copies for other nodes, while they fetch them
STATE_DIR/run/             sockets of the server
STATE_DIR/guard/           the guard's own files
STATE_DIR/secrets/         passwords and the like, 0600
STATE_DIR/notes/           what must survive a crash of the agent (notes.py)
STATE_DIR/diverged/        transactions that lost their place in the history
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Each engine adds files of its own."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def old_data(self) -> Path:
        return self.root / "old-data"

    @property
    def incoming(self) -> Path:
        """A data directory that is being made; renamed to `data` when it is whole."""
        return self.root / "incoming"

    @property
    def copies(self) -> Path:
        """Copies of the data that other nodes are fetching, where an engine makes such."""
        return self.root / "copies"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def guard(self) -> Path:
        return self.root / "guard"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    @property
    def diverged(self) -> Path:
        return self.root / "diverged"
