"""Both ends of a session as golden scripts, as tables, and as a property over schedules.

A script stands in `testdata/pull`: commands, a line of dashes, and everything that then happened.
Run with REWRITE=1 to accept new behaviour; read the diff, and commit it only if you can say why
each line changed.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.replication.pull.lab import RECORD_BYTES, A, B, Lab, MemoryLog, P

from primacy.model import Epoch
from primacy.replication.pull import source as at_source
from primacy.replication.pull.messages import AskPoints, Hop, Proof, Refusal, Report
from primacy.replication.pull.receiver import (
    HasParted,
    IsBehind,
    Lost,
    TurnedAway,
    WasPurged,
)
from primacy.replication.pull.source import Reign, SourceState

SCRIPTS = sorted((Path(__file__).parent / "testdata" / "pull").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    lab = Lab()
    played = "\n\n".join(play(lab, stanza) for stanza in path.read_text().strip().split("\n\n"))
    if os.environ.get("REWRITE"):
        path.write_text(played + "\n")
    assert path.read_text() == played + "\n"


def play(lab: Lab, stanza: str) -> str:
    commands = [line for line in stanza.split("----")[0].splitlines() if line]
    happened = [
        line
        for command in commands
        if not command.startswith("#")
        for line in getattr(lab, command.split()[0])(*command.split()[1:])
    ]
    return "\n".join([*commands, "----", *happened])


def run(lab: Lab, *commands: str) -> None:
    for command in commands:
        name, *words = command.split()
        list(getattr(lab, name)(*words))


# ---- who may have the log ---------------------------------------------------------------------


def other_cluster(lab: Lab) -> None:
    lab.following = replace(lab.following, cluster="shed")


def other_secret(lab: Lab) -> None:
    lab.following = replace(lab.following, secret=b"x" * 32)


def older_reader(lab: Lab) -> None:
    lab.identity = replace(lab.identity, log_version=2)


def is_excluded(lab: Lab) -> None:
    lab.excluded.add(B)


def serves_nobody(lab: Lab) -> None:
    lab.reign = None


def is_of_an_older_epoch(lab: Lab) -> None:
    lab.follow(Epoch(2))


def is_of_a_later_epoch(lab: Lab) -> None:
    lab.reign = Reign(Epoch(2), (Hop(A),))


def pulls_from_the_receiver(lab: Lab) -> None:
    lab.reign = Reign(Epoch(1), (Hop(P), Hop(B), Hop(A)))


@pytest.mark.parametrize(
    ("change", "refusal", "words"),
    [
        (other_cluster, Refusal.CLUSTER, "'shed'"),
        (other_secret, Refusal.SECRET, "does not know the secret"),
        (older_reader, Refusal.VERSION, "upgrade b"),
        (is_excluded, Refusal.EXCLUDED, "b is excluded"),
        (serves_nobody, Refusal.NOT_SERVING, "serves no epoch"),
        (is_of_an_older_epoch, Refusal.OLD_EPOCH, "a is of epoch 1, b follows 2"),
        (is_of_a_later_epoch, Refusal.NEW_EPOCH, "a is of epoch 2, b follows 1"),
        (pulls_from_the_receiver, Refusal.CYCLE, "p > b > a"),
    ],
)
def test_is_turned_away(change: Callable[[Lab], None], refusal: Refusal, words: str) -> None:
    lab = Lab()
    run(lab, "given source=5@1 receiver=3@1")
    change(lab)
    run(lab, "connect", "settle")
    assert isinstance(lab.ending, TurnedAway)
    assert lab.ending.refusal is refusal
    assert words in lab.ending.reason
    assert lab.logs[B].end.index == 3
    assert lab.unsynced == []


def test_a_source_refuses_whoever_only_claims_to_know_the_secret() -> None:
    """The receiver stops at the source's wrong proof; a cheat would send one of its own."""
    lab = Lab()
    run(lab, "given source=5@1 receiver=3@1", "connect", "deliver a")
    effects = lab.source.step(0.0, at_source.Said(Proof(proof="0" * 64)))
    assert [type(each).__name__ for each in effects] == ["Say", "Close"]
    assert isinstance(effects[-1], at_source.Close)
    assert effects[-1].is_told
    assert lab.source.member is None


def test_the_sources_own_proof_sent_back_is_none() -> None:
    lab = Lab()
    run(lab, "given source=5@1 receiver=3@1", "connect", "deliver a")
    challenge = lab.to_receiver[0]
    mirrored = lab.source.step(0.0, at_source.Said(Proof(proof=challenge.proof)))  # type: ignore[union-attr]  # It is a Challenge.
    assert isinstance(mirrored[-1], at_source.Close)


def test_another_node_at_the_upstreams_address_is_not_followed() -> None:
    lab = Lab()
    lab.identity = replace(lab.identity, node=P)
    run(lab, "given source=5@1 receiver=3@1", "connect", "settle")
    assert lab.ending == Lost("p answers at the address of a")


def streaming() -> Lab:
    lab = Lab()
    run(lab, "given source=5@1 receiver=3@1", "connect", "settle", "store", "settle")
    assert lab.source.state is SourceState.STREAMING
    return lab


def test_a_path_that_comes_to_lead_through_the_receiver_ends_the_session() -> None:
    lab = streaming()
    lab.reign = Reign(Epoch(1), (Hop(P), Hop(B), Hop(A)))
    run(lab, "wait 1", "tick", "settle")
    assert isinstance(lab.ending, TurnedAway)
    assert lab.ending.refusal is Refusal.CYCLE


@pytest.mark.parametrize(
    ("received", "applied", "size_bytes"),
    [(6, 0, 200), (5, 0, 300), (5, 6, 200), (4, 0, 100), (5, 0, 100)],
    ids=["never sent", "more bytes than sent", "applied, not received", "back", "fewer bytes"],
)
def test_a_report_that_cannot_be_ends_the_session(
    received: int, applied: int, size_bytes: int
) -> None:
    lab = streaming()
    points = MemoryLog.of("9@1").points
    report = Report(
        received=points[received],
        applied=points[applied],
        size_bytes=size_bytes,
        acknowledges=True,
    )
    [effect] = lab.source.step(0.0, at_source.Said(report))
    assert isinstance(effect, at_source.Close)
    assert "cannot be" in effect.reason


def test_a_message_out_of_turn_ends_the_session() -> None:
    lab = streaming()
    [effect] = lab.source.step(0.0, at_source.Said(AskPoints(indexes=(1,))))
    assert isinstance(effect, at_source.Close)
    assert lab.source.step(0.0, at_source.Said(lab.receiver.hello)) == ()


# ---- whatever two logs --------------------------------------------------------------------------

BRANCHES = ("", "x")


@st.composite
def two_logs(draw: st.DrawFn) -> tuple[MemoryLog, MemoryLog, int]:
    """A source's and a receiver's, how many records they share; both may be purged."""
    shared = draw(st.integers(0, 400))
    own, other = draw(st.integers(0, 200)), draw(st.integers(0, 200))
    text = f"{shared}@1"
    source = MemoryLog.of(f"{text},{other}@2")
    receiver = MemoryLog.of(f"{text},{own}@2{draw(st.sampled_from(BRANCHES))}")
    source.first_index = draw(st.integers(0, source.end.index))
    receiver.first_index = draw(st.integers(0, receiver.end.index))
    pairs = zip(source.points, receiver.points, strict=False)
    return source, receiver, sum(1 for mine, its in pairs if mine == its) - 1


@given(two_logs())
@settings(max_examples=200)
def test_every_pair_of_logs_gets_its_verdict(logs: tuple[MemoryLog, MemoryLog, int]) -> None:
    source, receiver, common = logs
    lab = Lab()
    lab.reign = Reign(Epoch(2), (Hop(A),))
    lab.follow(Epoch(2))
    lab.logs = {A: source, B: receiver}
    own_end, source_end = receiver.end, source.end
    run(lab, "connect", "settle")
    both_keep = max(source.first_index, receiver.first_index)
    if own_end.index < source.first_index:
        assert lab.ending == WasPurged(source.first)
    elif common == own_end.index:
        assert lab.source.is_streaming
        run(lab, *["store", "settle"] * 200)
        assert lab.ending is None
        assert receiver.points == source.points
    elif source_end.index < receiver.first_index:
        assert lab.ending == IsBehind(source_end)  # Nothing can be compared: it is not served.
    elif common == source_end.index:
        assert lab.ending == IsBehind(source_end)
    else:
        shared = source.points[common] if common >= both_keep else None
        assert lab.ending == HasParted(shared, own_end, source_end)
        assert receiver.end == own_end


# ---- whatever order ------------------------------------------------------------------------------

STEPS = st.sampled_from(
    ["deliver a", "deliver b", "store", "append 2 1", "append 9 1", "wait 0.9", "tick", "apply"]
)


@given(st.lists(STEPS, max_size=80), st.integers(0, 40))
@settings(max_examples=200)
def test_what_is_reported_is_durable_and_what_is_sent_is_bounded(
    steps: list[str], behind: int
) -> None:
    lab = Lab()
    run(lab, f"given source={behind}@1 receiver=0@1", "connect")
    for step in steps:
        if step == "deliver a" and not lab.to_source:
            continue
        if step == "deliver b" and not lab.to_receiver:
            continue
        run(lab, f"apply {lab.logs[B].durable.index}" if step == "apply" else step)
        durable = lab.logs[B].durable
        assert all(each.received.index <= durable.index for each in lab.reports)
        assert lab.source.unreported_bytes <= lab.limits.window_bytes
        assert lab.logs[A].points[: durable.index + 1] == lab.logs[B].points
        received = [each.received for each in lab.reports]
        assert received == sorted(received)
    assert not lab.source_end or "silent" in lab.source_end or "did not say" in lab.source_end
    if lab.source_end or lab.ending is not None:
        return
    run(lab, "settle", *["store", "settle"] * 60)
    assert lab.logs[B].points == lab.logs[A].points
    assert lab.reports[-1].received == lab.logs[A].end
    assert lab.reports[-1].size_bytes == lab.logs[A].end.index * RECORD_BYTES
