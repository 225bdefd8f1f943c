"""Raft as golden scripts and as a property over schedules.

A golden script is a text file in `testdata/raft`. A stanza is some commands, a line of dashes,
and everything that then happened. Run with REWRITE=1 to accept new behaviour; read the diff, and
commit it only if you can say why each line changed.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primacy.consensus.invariants import RaftHistory, check_group
from primacy.consensus.machine import (
    Apply,
    Effect,
    Entry,
    Event,
    HardState,
    Install,
    LeaderChanged,
    Persist,
    Persisted,
    Propose,
    ReadIndex,
    Received,
    Send,
    SendSnapshot,
    SnapshotMeta,
    SnapshotReceived,
    SnapshotSaved,
    SnapshotSent,
    Tick,
    TransferLeadership,
)
from primacy.consensus.raft.node import Limits, Message, Raft, Restored, State, Timing
from primacy.model import LogIndex, NodeId, Term

SCRIPTS = sorted((Path(__file__).parent / "testdata" / "raft").glob("*.txt"))
TIMING = Timing.for_lease(20.0)
"""Heartbeat 1 s, elections after 4 to 6.67 s: numbers that a person can follow."""
LIMITS = Limits(
    append_entries_max=3, inflight_messages_max=4, trailing_entries=2, uncommitted_bytes_max=4096
)
SETTLE_STEPS_MAX = 20_000
NAMES = ("a", "b", "c", "d", "e")


@dataclass
class Disk:
    """What was synced, and what was only written."""

    life: str
    hard: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    written: list[Persist] = field(default_factory=list)

    def sync(self) -> Persist:
        write = self.written.pop(0)
        if write.hard is not None:
            self.hard = write.hard
        if write.snapshot is not None:
            self.snapshot, self.entries = write.snapshot, []
        if write.entries:
            first = write.entries[0].index
            self.entries = [entry for entry in self.entries if entry.index < first]
            self.entries += write.entries
        return write


@dataclass(frozen=True)
class SnapshotUnderWay:
    term: Term
    meta: SnapshotMeta


class Lab:
    """A group under the test's thumb: nothing arrives, no write is synced and no time passes
    unasked. Each public method is a command and yields the lines that it adds to a script."""

    def __init__(self, chance: Callable[[], float] | None = None) -> None:
        self.now_s = 0.0
        self.chance = chance
        self.voters: tuple[NodeId, ...] = ()
        self.members: dict[NodeId, Raft] = {}
        self.disks: dict[NodeId, Disk] = {}
        self.in_flight: list[tuple[NodeId, NodeId, Message | SnapshotUnderWay]] = []
        self.cut_off: set[NodeId] = set()
        self.history = RaftHistory(())
        self.proposals = 0

    def group(self, *nodes: str) -> Iterator[str]:
        self.voters = tuple(map(NodeId, nodes))
        self.history = RaftHistory(self.voters)
        for node in self.voters:
            self.disks[node] = Disk(f"{node}-1")
            self._start(node)
        yield from ()

    def crash(self, *nodes: str) -> Iterator[str]:
        """Lose what was not synced."""
        for node in map(NodeId, nodes):
            if self.members.pop(node, None) is not None:
                self.disks[node].written.clear()
                yield f"  {node} is gone"

    def restart(self, *nodes: str) -> Iterator[str]:
        for node in map(NodeId, nodes):
            if node not in self.members:
                self._start(node)
                yield f"  {node} is back"

    def wipe(self, *nodes: str) -> Iterator[str]:
        """Start again with a blank disk, in a new life."""
        for node in map(NodeId, nodes):
            self.members.pop(node, None)
            life = int(self.disks[node].life[2:]) + 1
            self.disks[node] = Disk(f"{node}-{life}")
            self.history.disk_replaced(node)
            self._start(node)
            yield f"  {node} is blank"

    def cut(self, *nodes: str) -> Iterator[str]:
        self.cut_off |= set(map(NodeId, nodes))
        yield from ()

    def heal(self, *_: str) -> Iterator[str]:
        self.cut_off.clear()
        yield from ()

    def wait(self, seconds: str) -> Iterator[str]:
        """Time passes; nobody notices."""
        self.now_s += float(seconds)
        yield from ()

    def tick(self, *nodes: str) -> Iterator[str]:
        """Let each wake as it asked to, at the time it asked for."""
        for node in map(NodeId, nodes):
            if node in self.members and self.members[node].wake_at_s < 1e9:
                self.now_s = max(self.now_s, self.members[node].wake_at_s)
                yield f"{node} wakes at {self.now_s:.1f}s"
                yield from self._step(node, Tick())

    def sync(self, *nodes: str) -> Iterator[str]:
        for node in map(NodeId, nodes):
            while node in self.members and self.disks[node].written:
                yield from self._sync_one(node)

    def deliver(self, place: str = "0") -> Iterator[str]:
        if self.in_flight:
            sender, to, message = self.in_flight.pop(int(place) % len(self.in_flight))
            is_lost = to not in self.members or bool({sender, to} & self.cut_off)
            yield f"{sender} -> {to} {shown(message)}{', lost' if is_lost else ''}"
            if isinstance(message, SnapshotUnderWay):
                yield from self._deliver_snapshot(sender, to, message, is_lost=is_lost)
            elif not is_lost:
                yield from self._step(to, Received(sender, message))

    def drop(self, place: str = "0") -> Iterator[str]:
        if self.in_flight:
            sender, to, message = self.in_flight[int(place) % len(self.in_flight)]
            if not isinstance(message, SnapshotUnderWay):
                self.in_flight.remove((sender, to, message))
                yield f"{sender} -> {to} {shown(message)}, lost"

    def repeat(self, place: str = "0") -> Iterator[str]:
        if self.in_flight:
            sender, to, message = self.in_flight[int(place) % len(self.in_flight)]
            if not isinstance(message, SnapshotUnderWay):
                self.in_flight.append((sender, to, message))
        yield from ()

    def propose(self, node: str, *commands: str) -> Iterator[str]:
        self.proposals += 1
        data = tuple(command.encode() for command in commands or (f"p{self.proposals}",))
        yield from self._step(NodeId(node), Propose(data, self.proposals))

    def read(self, node: str) -> Iterator[str]:
        self.proposals += 1
        yield from self._step(NodeId(node), ReadIndex(self.proposals))

    def transfer(self, node: str, to: str) -> Iterator[str]:
        yield from self._step(NodeId(node), TransferLeadership(NodeId(to)))

    def snapshot(self, node: str) -> Iterator[str]:
        """Save a snapshot of all that is applied; the disk forgets the log before it."""
        member = self.members.get(NodeId(node))
        if member is None or member.applied_index <= self.disks[member.node].snapshot.index:
            return
        term = member.log.term_at(member.applied_index)
        assert term is not None
        meta = SnapshotMeta(index=member.applied_index, term=term)
        disk = self.disks[member.node]
        disk.snapshot = meta
        disk.entries = [entry for entry in disk.entries if entry.index > meta.index]
        yield f"  {node} saves {meta.index}"
        yield from self._step(member.node, SnapshotSaved(meta))

    def settle(self, seconds: str = "0") -> Iterator[str]:
        """Sync and deliver everything; then let time pass, for so long."""
        end_s = self.now_s + float(seconds)
        for _step in range(SETTLE_STEPS_MAX):
            unsynced = [node for node in self.members if self.disks[node].written]
            wakes = [(member.wake_at_s, node) for node, member in self.members.items()]
            if unsynced:
                yield from self._sync_one(unsynced[0])
            elif self.in_flight:
                yield from self.deliver()
            elif wakes and min(wakes)[0] <= end_s:
                yield from self.tick(min(wakes)[1])
            else:
                check_group(self.members.values())
                return
        pytest.fail(f"not settled after {SETTLE_STEPS_MAX} steps")

    def quietly(self, seconds: str = "0") -> Iterator[str]:
        """Settle, and tell only where everybody then stands."""
        list(self.settle(seconds))
        yield from self.show()

    def show(self, *_: str) -> Iterator[str]:
        for member in self.members.values():
            yield (
                f"  {member}, last {member.last_index}, commit {member.commit_index},"
                f" applied {member.applied_index}{'' if member.is_admitted else ', takes no part'}"
            )

    # ---- inside -------------------------------------------------------------------------

    def _start(self, node: NodeId) -> None:
        disk = self.disks[node]
        restored = Restored(disk.hard, tuple(disk.entries), disk.snapshot, disk.life)
        fixed = self.voters.index(node) / len(self.voters)
        chance = self.chance or (lambda: fixed)
        member = Raft(node, self.voters, TIMING, restored, chance, self.now_s, limits=LIMITS)
        self.members[node] = member
        self.history.started(member)

    def _sync_one(self, node: NodeId) -> Iterator[str]:
        write = self.disks[node].sync()
        yield f"{node} synced {write.write_id}"
        yield from self._step(node, Persisted(write.write_id))

    def _deliver_snapshot(
        self, sender: NodeId, to: NodeId, sent: SnapshotUnderWay, *, is_lost: bool
    ) -> Iterator[str]:
        if not is_lost:
            if sent.meta.index > self.disks[to].snapshot.index and self.members[to].is_admitted:
                self.disks[to].snapshot = sent.meta
            yield from self._step(to, SnapshotReceived(sender, sent.term, sent.meta))
        if sender in self.members:
            yield from self._step(sender, SnapshotSent(to, sent.meta, not is_lost))

    def _step(self, node: NodeId, event: Event[Message]) -> Iterator[str]:
        member = self.members.get(node)
        if member is None:
            return
        state_before = member.state
        effects = member.step(self.now_s, event)
        self.history.observe(member, effects, event)
        for effect in effects:
            self._carry_out(node, effect)
            yield f"  {node} {shown_effect(effect)}"
        if member.state is not state_before:
            yield f"  {node} is {member.state.name}"

    def _carry_out(self, node: NodeId, effect: Effect[Message]) -> None:
        match effect:
            case Send(to, message):
                self.in_flight.append((node, to, message))
            case Persist():
                self.disks[node].written.append(effect)
            case SendSnapshot(to, term):
                meta = self.disks[node].snapshot
                self.in_flight.append((node, to, SnapshotUnderWay(term, meta)))
            case _:
                pass


COMMANDS: dict[str, Callable[..., Iterator[str]]] = {
    command.__name__: command
    for command in (
        Lab.group, Lab.crash, Lab.restart, Lab.wipe, Lab.cut, Lab.heal, Lab.wait, Lab.tick,
        Lab.sync, Lab.deliver, Lab.drop, Lab.repeat, Lab.propose, Lab.read, Lab.transfer,
        Lab.snapshot, Lab.settle, Lab.quietly, Lab.show,
    )
}  # fmt: skip


def shown(message: Message | SnapshotUnderWay) -> str:
    fields = {
        name: getattr(message, name)
        for name in getattr(message, "__struct_fields__", ("term", "meta"))
        if name not in ("incarnation", "reason")
    }
    if "entries" in fields:
        fields["entries"] = [f"{entry.index}:{entry.term}" for entry in fields["entries"]]
    if "meta" in fields:
        fields["meta"] = f"{fields['meta'].index}:{fields['meta'].term}"
    inside = " ".join(f"{name}={value}" for name, value in fields.items())
    return f"{type(message).__name__} {inside}".replace("'", "")


def shown_effect(effect: Effect[Message]) -> str:
    match effect:
        case Send(to, message):
            return f"-> {to} {shown(message)}"
        case Persist(write_id, hard, entries, snapshot):
            parts = [f"writes {write_id}:"]
            if hard is not None:
                parts.append(f"term {hard.term} vote {hard.voted_for or 'none'}")
            parts += [f"entry {entry.index}:{entry.term}" for entry in entries]
            if snapshot is not None:
                parts.append(f"restart behind {snapshot.index}")
            return " ".join(parts)
        case Apply(entries):
            return "applies " + " ".join(entry.data.decode() or "no-op" for entry in entries)
        case Install(meta):
            return f"installs {meta.index}:{meta.term}"
        case LeaderChanged():
            return str(effect)
        case _:
            fields = (f"{name}={getattr(effect, name)}" for name in effect.__dataclass_fields__)
            shown_fields = " ".join(each for each in fields if not each.startswith("entries="))
            return f"{type(effect).__name__} {shown_fields}".rstrip()


def replay(script: str) -> str:
    """Run the commands of a script and return it with what they really did."""
    lab = Lab()
    stanzas = []
    for stanza in script.strip().split("\n\n"):
        heading = stanza.split("\n----")[0]
        lines = [heading, "----"]
        for line in heading.splitlines():
            if not line.startswith("#"):
                verb, *arguments = line.split()
                lines += COMMANDS[verb](lab, *arguments)
        stanzas.append("\n".join(lines))
    return "\n\n".join(stanzas) + "\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    script = path.read_text()
    replayed = replay(script)
    if os.environ.get("REWRITE"):
        path.write_text(replayed)
    else:
        assert replayed == script


VERBS = (
    "tick", "tick", "tick", "sync", "sync", "sync", "deliver", "deliver", "deliver", "deliver",
    "deliver", "propose", "propose", "read", "drop", "repeat", "crash", "restart", "wait",
    "cut", "heal", "transfer", "snapshot", "wipe",
)  # fmt: skip


def shake(lab: Lab, verb: str, number: int) -> None:
    node = lab.voters[number % len(lab.voters)]
    match verb:
        case "deliver" | "drop" | "repeat":
            place = number % 7 if number % 3 else number  # Mostly in order, sometimes not.
            list(COMMANDS[verb](lab, str(place)))
        case "transfer":
            list(lab.transfer(node, lab.voters[(number + 1) % len(lab.voters)]))
        case "wait":
            list(lab.wait(str(number % 8)))
        case "heal":
            list(lab.heal())
        case "wipe":
            is_redundant = len(lab.voters) > 1  # A lone disk that is wiped is lost.
            if (
                is_redundant
                and number % 11 == 0
                and all(lab.disks[each].life[-1] == "1" for each in lab.voters)
            ):
                list(lab.wipe(node))
        case _:
            list(COMMANDS[verb](lab, node))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1, 2, 3, 3, 5]),
    is_settled_first=st.booleans(),
    schedule=st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 99)), max_size=300),
)
def test_any_schedule_keeps_every_promise_and_then_finds_a_leader(
    *, seed: int, size: int, is_settled_first: bool, schedule: list[tuple[str, int]]
) -> None:
    lab = Lab(random.Random(seed).random)
    list(lab.group(*NAMES[:size]))
    if is_settled_first:
        list(lab.settle("20"))
    for verb, number in schedule:
        shake(lab, verb, number)  # The history raises when a promise is broken.
    check_group(lab.members.values())
    recover(lab)


def recover(lab: Lab) -> None:
    """Repair everything but wiped disks: a leader must arise and all must catch up."""
    list(lab.heal())
    list(lab.restart(*lab.voters))
    list(lab.settle("120"))
    fit = [member for member in lab.members.values() if member.is_admitted]
    if len(fit) <= len(lab.voters) // 2:
        return
    leaders = [member for member in fit if member.state is State.LEADER]
    assert len(leaders) == 1
    list(lab.propose(leaders[0].node, "last"))
    list(lab.settle("30"))
    assert {member.applied_index for member in fit} == {LogIndex(leaders[0].last_index)}
