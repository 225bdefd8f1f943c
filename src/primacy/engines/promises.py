"""What a node has bound itself to, over its durable notes: the same for every engine.

    seal for e      note "below e refused"; stop receiving; publish how far the log goes
    follow e        note "below e refused"; attach
    begin e         note "below e refused"; write the epoch's row; note where it stands

Promises  A note is durable before the deed that it announces. A position that was published is
          never undercut: a seal waits until it is there again, unless a cut or the primary's
          history has made it void.
Source    docs/protocols/failover.md; DESIGN, the promotion rule, 4 and 5.
"""

import msgspec

from primacy.engines.api import Observation, Replication, ServerState
from primacy.engines.notes import NoteFile, Notes
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, Incarnation, NodeId, Position

NO_EPOCH = Epoch(0)


class Promises:
    """Of one node. Its methods block for the fsyncs of a note that changes."""

    def __init__(self, file: NoteFile) -> None:
        self._file = file

    @property
    def notes(self) -> Notes:
        return self._file.notes

    def bind(self, incarnation: str, *, stands_at: Position) -> None:
        """The data are these; a clone begins at `stands_at`."""
        self._file.bind(incarnation, stands_at=stands_at)

    def note(self, **changes: object) -> None:
        """Durable when this returns; nothing is written where nothing changed."""
        self._file.save(msgspec.structs.replace(self.notes, **changes))

    def refuse_torn(self) -> None:
        if self.notes.is_torn:
            raise Conflict("a rewind of these data has not ended", hint="Clone the node.")

    # -- sealing

    def seal(self, epoch: Epoch) -> None:
        """`Conflict` where it comes too late."""
        notes = self.notes
        if epoch < notes.sealed_epoch or epoch <= max(notes.following_epoch, notes.led_epoch):
            newest = max(notes.sealed_epoch, notes.following_epoch, notes.led_epoch)
            raise Conflict(
                f"a seal for epoch {epoch} comes too late: this node is at {newest}",
                hint="Read the cluster's epoch again.",
            )
        self.refuse_torn()
        self.note(sealed_epoch=epoch)

    def publish(self, received: Position) -> None:
        """This node says that its log goes so far. `Unavailable` below what it said before."""
        published = self.still_published(received)
        if received < published:
            raise Unavailable(
                f"this log goes to {received}; it was published up to {published}",
                hint="A part of it is missing. It comes back from a primary that has it.",
            )
        self.note(published=received)

    def still_published(self, end: Position) -> Position:
        """How much of it binds a log that ends at `end`: a cut may take away what this node led
        itself, and nothing from before. Its own seal does not count for that epoch."""
        notes = self.notes
        is_own = notes.is_cut and notes.led_from > 0 and notes.published.epoch == notes.led_epoch
        is_void = is_own and end.sequence >= notes.led_from - 1
        return min(end, notes.published) if is_void else notes.published

    # -- following

    def check_not_refused(self, epoch: Epoch) -> None:
        sealed = self.notes.sealed_epoch
        if epoch < sealed:
            raise Conflict(
                f"epoch {epoch} is refused: this node is sealed for {sealed}",
                hint="Follow the primary of the newest epoch.",
            )

    def follow(self, epoch: Epoch) -> None:
        self.check_not_refused(epoch)
        self.refuse_torn()
        self.note(sealed_epoch=epoch, following_epoch=epoch)

    def forget_lead(self, *, published: Position) -> None:
        """It follows: what it led is over. `published` is what its seals still stand for."""
        self.note(led_epoch=NO_EPOCH, led_from=0, published=published)

    # -- taking a tail away

    def cut(self) -> None:
        """Before anything is taken away: rule 5(a) is no longer this node's."""
        self.note(is_cut=True)

    def tear(self, epoch: Epoch) -> None:
        """A rewind begins: until `mended` the data are of no use."""
        self.note(sealed_epoch=epoch, is_cut=True, is_torn=True)

    def stand_at(self, place: Position) -> None:
        """The tail behind `place` is gone, and nobody will miss it."""
        self.note(
            led_epoch=NO_EPOCH,
            led_from=0,
            published=place,
            row=None,
            is_written_on=False,
            unfit="",
        )

    def mended(self) -> None:
        self.note(is_torn=False)

    # -- leading

    def check_may_lead(self, epoch: Epoch, primary: NodeId, node: NodeId) -> None:
        if primary != node:
            raise Conflict(f"{primary} begins epoch {epoch}, not this node", hint="Observe again.")
        sealed = self.notes.sealed_epoch
        if epoch < sealed:
            raise Conflict(f"epoch {epoch} is below the seal for {sealed}", hint="Win a later one.")

    def lead(self, epoch: Epoch) -> None:
        """Before the epoch's row is written."""
        self.note(sealed_epoch=epoch, following_epoch=NO_EPOCH, led_epoch=epoch, led_from=0)

    def leads_from(self, sequence: int) -> None:
        """The row stands there. The log is whole again as far as rule 5(a) is concerned."""
        self.note(is_cut=False, led_from=sequence)

    def leads_already_from(self, epoch: Epoch, sequence: int) -> None:
        """The row was found: its writer's answer was lost."""
        if self.notes.led_epoch == epoch and not self.notes.led_from:
            self.leads_from(sequence)


def of_a_silent_server(
    notes: Notes,
    state: ServerState,
    why: str,
    *,
    incarnation: Incarnation | None,
    has_old_data: bool,
) -> Observation:
    """What the files say of a server that is down or does not answer."""
    return Observation(
        state=state,
        incarnation=incarnation,
        received=notes.published,
        sealed_epoch=notes.sealed_epoch,
        following_epoch=notes.following_epoch,
        replication=Replication(error=notes.unfit or None),
        is_cut=notes.is_cut,
        is_torn=notes.is_torn,
        is_errant=notes.is_written_on,
        has_old_data=has_old_data,
        detail=why,
    )
