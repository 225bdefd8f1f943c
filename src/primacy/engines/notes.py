"""What one node must remember whatever happens: a small file, replaced as a whole.

Promises  When `save` has returned, the note is on the disk, file and name: a power cut later
          cannot undo it. A crash during `save` leaves the old note or the new one.
"""

from pathlib import Path

import msgspec

from primacy.engines.api import Branch
from primacy.errors import Corrupt
from primacy.model import ORIGIN, Epoch, Position
from primacy.runtime.files import PRIVATE, replace_file

NOTE_NAME = "replication.json"
FORMAT = 1


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """The replication state that the server itself does not keep."""

    format: int = FORMAT
    incarnation: str = ""
    """Of the data that the notes are about; `sealed_epoch` and `starts` outlive it."""
    sealed_epoch: Epoch = Epoch(0)
    """Every sender below it is refused."""
    following_epoch: Epoch = Epoch(0)
    led_epoch: Epoch = Epoch(0)
    """The last epoch that this node began itself; 0 once it follows another primary."""
    led_from: int = 0
    """The sequence of that epoch's row; 0 until it is known to stand."""
    is_cut: bool = False
    """The log was cut since this node led."""
    is_torn: bool = False
    """A rewind has begun and not ended: these data are of no use, and are cloned anew."""
    published: Position = ORIGIN
    """How far this node has said that its log goes. It neither seals nor acknowledges below."""
    row: Branch | None = None
    """The newest epoch row that was seen in the tables: the log need not be read from before it."""
    unfit: str = ""
    """Why what stands in the log cannot be applied to these data: only a copy, or a rewind, makes
    them useful again. In words; empty while nothing is known against them."""
    is_written_on: bool = False
    """As a replica it has shown transactions of its own."""
    starts: int = 0
    """How often a server was started here; outlives the data, as `sealed_epoch` does."""


class NoteFile:
    """Where the notes are. One task writes them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NOTE_NAME
        self._notes: Notes | None = None

    @property
    def notes(self) -> Notes:
        """As last saved; read from the disk once. `Corrupt` names the file."""
        if self._notes is None:
            self._notes = self._read()
        return self._notes

    def save(self, notes: Notes) -> None:
        """Blocks for two fsyncs. Nothing is written where nothing changed."""
        if notes == self.notes:
            return
        replace_durably(self._path, msgspec.json.encode(notes))
        self._notes = notes

    def bind(self, incarnation: str, *, stands_at: Position = ORIGIN) -> None:
        """The data directory is this one. Notes about another are void, but for the seal."""
        if self.notes.incarnation != incarnation:
            self.save(
                Notes(
                    incarnation=incarnation,
                    sealed_epoch=self.notes.sealed_epoch,
                    published=stands_at,
                    starts=self.notes.starts,
                )
            )

    def _read(self) -> Notes:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Notes)
        except FileNotFoundError:
            return Notes()
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Corrupt(
                f"{self._path} cannot be read: {error}",
                hint="It holds what this node has promised. Clone the node anew.",
            ) from error


def replace_durably(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """As `replace_file`, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, [content], mode=mode)
