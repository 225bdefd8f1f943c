"""What a node has bound itself to: notes before deeds, and no way back."""

from pathlib import Path

import pytest

from primacy.engines.notes import NoteFile, Notes
from primacy.engines.promises import Promises
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, NodeId, Position

A, B = NodeId("a"), NodeId("b")


def promises(folder: Path) -> Promises:
    return Promises(NoteFile(folder))


def on_disk(folder: Path) -> Notes:
    """As the next agent reads them."""
    return NoteFile(folder).notes


def test_a_seal_is_noted_and_refuses_every_older_primary(tmp_path: Path) -> None:
    node = promises(tmp_path)
    node.seal(Epoch(3))
    assert on_disk(tmp_path).sealed_epoch == 3
    with pytest.raises(Conflict, match="sealed for 3"):
        node.follow(Epoch(2))
    with pytest.raises(Conflict, match="below the seal for 3"):
        node.check_may_lead(Epoch(2), A, A)
    node.seal(Epoch(3))  # Once more, as after a crash of the agent.
    node.follow(Epoch(3))
    assert on_disk(tmp_path).following_epoch == 3


@pytest.mark.parametrize("bound", ["following", "leading"])
def test_a_seal_for_an_epoch_that_is_followed_or_led_comes_too_late(
    tmp_path: Path, bound: str
) -> None:
    node = promises(tmp_path)
    if bound == "following":
        node.follow(Epoch(4))
    else:
        node.lead(Epoch(4))
    with pytest.raises(Conflict, match="too late"):
        node.seal(Epoch(4))
    node.seal(Epoch(5))


def test_what_was_published_is_never_undercut(tmp_path: Path) -> None:
    node = promises(tmp_path)
    node.publish(Position(Epoch(1), 10))
    with pytest.raises(Unavailable, match="published up to 1/10"):
        promises(tmp_path).publish(Position(Epoch(1), 9))
    node.publish(Position(Epoch(2), 5))  # Another history, that of a later epoch.
    assert on_disk(tmp_path).published == Position(Epoch(2), 5)


def test_a_cut_makes_void_what_this_node_led_itself_and_nothing_from_before(
    tmp_path: Path,
) -> None:
    node = promises(tmp_path)
    node.lead(Epoch(3))
    node.leads_from(735)
    node.publish(Position(Epoch(3), 741))
    with pytest.raises(Unavailable, match="published up to 3/741"):
        node.publish(Position(Epoch(3), 739))  # Nothing has cut it: a part is missing.
    node.cut()
    with pytest.raises(Unavailable, match="published up to 3/741"):
        node.publish(Position(Epoch(2), 733))  # Others may count on 2/734.
    assert node.still_published(Position(Epoch(2), 734)) == Position(Epoch(2), 734)
    node.publish(Position(Epoch(3), 739))
    assert on_disk(tmp_path).published == Position(Epoch(3), 739)

    node.lead(Epoch(5))
    node.leads_from(745)
    node.forget_lead(published=Position(Epoch(4), 744))
    node.cut()
    with pytest.raises(Unavailable, match="published up to 4/744"):
        node.publish(Position(Epoch(4), 743))  # It was received from another primary.


def test_a_rewind_that_has_not_ended_leaves_data_that_nobody_counts_on(tmp_path: Path) -> None:
    node = promises(tmp_path)
    node.lead(Epoch(1))
    node.leads_from(1)
    node.publish(Position(Epoch(1), 10))
    node.tear(Epoch(2))
    for refused in (node.seal, node.follow):
        with pytest.raises(Conflict, match="has not ended"):
            refused(Epoch(3))
    node.stand_at(Position(Epoch(1), 7))
    node.mended()
    kept = on_disk(tmp_path)
    assert (kept.is_cut, kept.is_torn, kept.led_epoch) == (True, False, 0)
    node.seal(Epoch(3))
    node.publish(Position(Epoch(1), 7))


def test_who_leads_notes_it_first_and_a_lost_answer_is_found_again(tmp_path: Path) -> None:
    node = promises(tmp_path)
    with pytest.raises(Conflict, match="b begins epoch 2"):
        node.check_may_lead(Epoch(2), B, A)
    node.cut()
    node.lead(Epoch(2))
    assert (on_disk(tmp_path).led_epoch, on_disk(tmp_path).is_cut) == (2, True)
    node.leads_already_from(Epoch(2), 8)
    node.leads_already_from(Epoch(2), 9)  # Noted already: the first word stands.
    assert (on_disk(tmp_path).led_from, on_disk(tmp_path).is_cut) == (8, False)


def test_other_data_make_all_void_but_the_seal(tmp_path: Path) -> None:
    node = promises(tmp_path)
    node.bind("one", stands_at=Position(Epoch(0), 0))
    node.seal(Epoch(6))
    node.publish(Position(Epoch(5), 50))
    node.bind("two", stands_at=Position(Epoch(5), 40))
    kept = on_disk(tmp_path)
    assert (kept.sealed_epoch, kept.published) == (6, Position(Epoch(5), 40))
