"""Members of the store over a network of virtual time: who is answered, with what, and when."""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from primacy.consensus.machine import (
    Entry,
    HardState,
    Install,
    Persist,
    Persisted,
    Received,
    Send,
    SendSnapshot,
    SnapshotMeta,
    SnapshotReceived,
    SnapshotSaved,
    SnapshotSent,
    Tick,
)
from primacy.consensus.raft.node import Limits, Raft, Restored, State, Timing
from primacy.coordination.api import LeaseId, Put, Range, RangeResult, Txn
from primacy.coordination.embedded.commands import (
    Answer,
    Body,
    Commit,
    Committed,
    Failure,
    Grant,
    Granted,
    OpenSession,
    Refusal,
    Renewed,
    SessionId,
    SessionOpened,
    StatusRead,
    Write,
)
from primacy.coordination.embedded.kv import Kv
from primacy.coordination.embedded.member import MemberLimits, StoreMember
from primacy.coordination.embedded.requests import (
    Changes,
    ClientRequest,
    MemberEffect,
    MemberEvent,
    Read,
    ReadStatus,
    RenewLease,
    Replaced,
    Reply,
    RequestBody,
    SnapshotDue,
)
from primacy.model import NodeId, Revision

TIMING = Timing(0.05, 0.2, 0.33)
NAMES = tuple(NodeId(name) for name in "abc")


@dataclass
class Disk:
    hard: HardState = field(default_factory=HardState)
    entries: dict[int, Entry] = field(default_factory=dict)
    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    pieces: list[bytes] = field(default_factory=list)

    def write(self, persist: Persist) -> None:
        if persist.hard is not None:
            self.hard = persist.hard
        if persist.snapshot is not None:
            self.entries.clear()
        if persist.entries:
            first = persist.entries[0].index
            self.entries = {i: e for i, e in self.entries.items() if i < first}
            self.entries |= {entry.index: entry for entry in persist.entries}

    def restored(self, name: str) -> Restored:
        entries = tuple(self.entries[index] for index in sorted(self.entries))
        return Restored(self.hard, entries, self.snapshot, f"life-of-{name}")


class World:
    """Messages arrive at once and in order, disks write at once; time passes in `run`."""

    def __init__(self, *, snapshot_entries: int = 10_000) -> None:
        self.now_s = 100.0
        self.limits = MemberLimits(snapshot_entries=snapshot_entries)
        self.chance = random.Random(7)
        self.disks = {name: Disk() for name in NAMES}
        self.members: dict[NodeId, StoreMember] = {}
        self.cut: set[NodeId] = set()
        self.replies: dict[int, Answer] = {}
        self.seen: dict[NodeId, list[MemberEffect]] = {name: [] for name in NAMES}
        self.queue: deque[tuple[NodeId, MemberEvent]] = deque()
        self.sequence = 0
        self.last_id = 0
        for name in NAMES:
            self.start(name)

    def start(self, name: NodeId) -> None:
        disk = self.disks[name]
        restored = disk.restored(name)
        raft = Raft(
            name,
            NAMES,
            TIMING,
            restored,
            self.chance.random,
            self.now_s,
            limits=Limits(trailing_entries=5),
        )
        kv = Kv.from_pieces(iter(disk.pieces)) if disk.pieces else Kv()
        self.members[name] = StoreMember(
            name, raft, kv, restored=restored, now_s=self.now_s, limits=self.limits
        )

    def step(self, name: NodeId, event: MemberEvent) -> None:
        self.perform(name, self.members[name].step(self.now_s, event))

    def perform(self, name: NodeId, effects: list[MemberEffect]) -> None:
        member, disk = self.members[name], self.disks[name]
        for effect in effects:
            match effect:
                case Send(to, message):
                    if not {name, to} & self.cut and to in self.members:
                        self.queue.append((to, Received(name, message)))
                case Persist() as persist:
                    disk.write(persist)
                    self.queue.append((name, Persisted(persist.write_id)))
                case SnapshotDue():
                    disk.snapshot, pieces = member.freeze()
                    disk.pieces = list(pieces)
                    self.queue.append((name, SnapshotSaved(disk.snapshot)))
                case SendSnapshot(to, term):
                    if {name, to} & self.cut or to not in self.members:
                        self.queue.append(
                            (name, SnapshotSent(to, disk.snapshot, is_delivered=False))
                        )
                        continue
                    other = self.disks[to]
                    other.snapshot, other.pieces = disk.snapshot, disk.pieces
                    self.queue.append((to, SnapshotReceived(name, term, disk.snapshot)))
                    self.queue.append((name, SnapshotSent(to, disk.snapshot, is_delivered=True)))
                case Install(meta):
                    self.perform(name, member.install(self.now_s, meta, iter(disk.pieces)))
                case Reply(request_id, body):
                    assert request_id not in self.replies, "answered twice"
                    self.replies[request_id] = body
                case _:
                    self.seen[name].append(effect)

    def settle(self) -> None:
        while self.queue:
            name, event = self.queue.popleft()
            if name in self.members:
                self.step(name, event)

    def run(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        while True:
            self.settle()
            name = min(self.members, key=lambda each: self.members[each].wake_at_s)
            wake_s = self.members[name].wake_at_s
            if wake_s > until_s:
                break
            self.now_s = max(self.now_s, wake_s)
            self.step(name, Tick())
        self.now_s = until_s

    def ask(self, name: NodeId, body: RequestBody) -> int:
        self.last_id += 1
        self.step(name, ClientRequest(self.last_id, body))
        return self.last_id

    def answer(self, name: NodeId, body: RequestBody, *, within_s: float = 0.01) -> Answer:
        number = self.ask(name, body)
        self.run(within_s)
        return self.replies[number]

    def leader(self) -> NodeId:
        for _ in range(100):
            self.run(0.1)
            ready = [n for n, m in self.members.items() if n not in self.cut and m.is_ready_leader]
            if ready:
                return ready[0]
        raise AssertionError("nobody leads")

    def open(self, name: NodeId) -> SessionId:
        opened = self.answer(name, OpenSession())
        assert isinstance(opened, SessionOpened)
        return opened.session

    def write(self, session: SessionId, body: Body) -> Write:
        self.sequence += 1
        return Write(session, self.sequence, self.sequence, body)

    def grant(self, name: NodeId, session: SessionId, ttl_s: float) -> LeaseId:
        granted = self.answer(name, self.write(session, Grant(ttl_s)))
        assert isinstance(granted, Granted)
        return granted.lease.lease

    def held(self, name: NodeId) -> list[str]:
        found = self.members[name].kv.range(Range("", is_prefix=True))
        return [item.key for item in found.items]


def put(key: str, lease: LeaseId = LeaseId(0)) -> Commit:  # noqa: B008 - an int
    return Commit(Txn(then=(Put(key, b"v", lease),)))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.cut.clear()
    world.run(2.0)
    assert len({tuple(m.kv.freeze()) for m in world.members.values()}) == 1, "members differ"


def test_a_write_is_answered_after_it_is_applied_and_all_members_hold_it(world: World) -> None:
    leader = world.leader()
    session = world.open(leader)
    reply = world.answer(leader, world.write(session, put("k")))
    assert isinstance(reply, Committed)
    assert reply.result.revision == 1
    world.run(0.2)
    assert [world.held(name) for name in NAMES] == [["k"]] * 3
    for name in NAMES:
        batches = [e.batch.revision for e in world.seen[name] if isinstance(e, Changes)]
        assert batches == [Revision(1)]


def test_a_member_that_does_not_lead_names_the_leader_and_reads_serializably(
    world: World,
) -> None:
    leader = world.leader()
    world.answer(leader, world.write(world.open(leader), put("k")))
    world.run(0.2)
    follower = next(name for name in NAMES if name != leader)
    for body in (OpenSession(), Read(Range("k")), RenewLease(LeaseId(1))):
        refused = world.answer(follower, body)
        assert isinstance(refused, Failure)
        assert (refused.refusal, refused.leader) == (Refusal.NOT_LEADER, leader)
    read = world.answer(follower, Read(Range("k"), is_serializable=True))
    assert isinstance(read, RangeResult)
    assert [item.key for item in read.items] == ["k"]


def test_requests_of_one_tick_become_one_entry_for_renewals(world: World) -> None:
    leader = world.leader()
    session = world.open(leader)
    lease = world.grant(leader, session, 3.0)
    before = world.members[leader].raft.last_index
    numbers = [world.ask(leader, RenewLease(each)) for each in (lease, LeaseId(999), lease)]
    world.run(0.01)
    replies = [world.replies[number] for number in numbers]
    assert [type(reply) for reply in replies] == [Renewed, Failure, Renewed]
    assert world.members[leader].raft.last_index == before + 1


def test_a_linearizable_read_sees_the_write_before_it(world: World) -> None:
    leader = world.leader()
    session = world.open(leader)
    world.answer(leader, world.write(session, put("k")))
    read = world.answer(leader, Read(Range("k")))
    assert isinstance(read, RangeResult)
    assert len(read.items) == 1


def test_a_leader_that_was_cut_off_answers_neither_reads_nor_writes(world: World) -> None:
    old = world.leader()
    session = world.open(old)
    lease = world.grant(old, session, 3.0)
    world.cut.add(old)
    numbers = [
        world.ask(old, body)
        for body in (Read(Range("k")), world.write(session, put("k")), RenewLease(lease))
    ]
    world.run(0.1)
    assert not set(numbers) & set(world.replies)
    world.run(1.0)
    read, write, renewal = (world.replies[number] for number in numbers)
    assert isinstance(read, Failure)
    assert isinstance(write, Failure)
    assert isinstance(renewal, Failure)
    assert read.refusal is Refusal.NOT_LEADER
    assert (write.refusal, renewal.refusal) == (Refusal.UNKNOWN, Refusal.UNKNOWN)


def test_a_retry_at_the_next_leader_takes_effect_once(world: World) -> None:
    old = world.leader()
    write = world.write(world.open(old), put("k"))
    world.answer(old, write)
    world.cut.add(old)
    new = world.leader()
    again = world.answer(new, write)
    assert isinstance(again, Committed)
    assert again.result.revision == 1
    assert world.members[new].kv.revision == 1


def test_a_lease_ends_about_ttl_after_its_last_renewal_with_its_keys(world: World) -> None:
    leader = world.leader()
    session = world.open(leader)
    lease = world.grant(leader, session, 2.0)
    world.answer(leader, world.write(session, put("held", lease)))
    world.run(1.5)
    renewed_at_s = world.now_s
    assert isinstance(world.answer(leader, RenewLease(lease)), Renewed)
    world.run(renewed_at_s + 1.99 - world.now_s)
    assert world.held(leader) == ["held"]
    world.run(0.05)
    assert world.held(leader) == []
    lost = world.answer(leader, RenewLease(lease))
    assert isinstance(lost, Failure)
    assert lost.refusal is Refusal.LEASE_LOST


def test_a_change_of_leader_neither_cuts_a_lease_nor_keeps_it_for_ever(world: World) -> None:
    old = world.leader()
    session = world.open(old)
    lease = world.grant(old, session, 2.0)
    granted_at_s = world.now_s
    world.answer(old, world.write(session, put("held", lease)))
    world.cut.add(old)
    new = world.leader()
    world.run(granted_at_s + 1.9 - world.now_s)
    assert world.held(new) == ["held"]
    world.run(0.3)
    assert world.held(new) == []


def test_a_restart_of_all_members_keeps_leases_for_a_whole_ttl(world: World) -> None:
    leader = world.leader()
    session = world.open(leader)
    lease = world.grant(leader, session, 2.0)
    world.answer(leader, world.write(session, put("held", lease)))
    world.run(1.9)
    world.queue.clear()
    for name in NAMES:
        world.start(name)
    restarted_at_s = world.now_s
    leader = world.leader()
    world.run(restarted_at_s + 1.9 - world.now_s)
    assert world.held(leader) == ["held"]
    world.run(0.3)
    assert world.held(leader) == []


def test_status_shows_what_is_left_of_leases_on_the_leader_only(world: World) -> None:
    leader = world.leader()
    lease = world.grant(leader, world.open(leader), 3.0)
    for name in NAMES:
        reply = world.answer(name, ReadStatus())
        assert isinstance(reply, StatusRead)
        assert reply.status.leader == leader
        left_s = reply.status.lease_left_s
        assert (2.5 < left_s[lease] <= 3.0) if name == leader else not left_s


def test_a_member_far_behind_takes_over_a_snapshot_and_tells_its_watches() -> None:
    world = World(snapshot_entries=50)
    leader = world.leader()
    session = world.open(leader)
    laggard = next(name for name in NAMES if name != leader)
    world.cut.add(laggard)
    lease = world.grant(leader, session, 10.0)
    for number in range(200):
        world.answer(leader, world.write(session, put(f"k{number}", lease)))
    world.cut.clear()
    world.run(2.0)
    assert world.held(laggard) == world.held(leader)
    assert any(isinstance(effect, Replaced) for effect in world.seen[laggard])
    assert len({tuple(m.kv.freeze()) for m in world.members.values()}) == 1


def test_no_state_but_a_leader_of_its_term_lets_leases_end() -> None:
    world = World()
    leader = world.leader()
    session = world.open(leader)
    lease = world.grant(leader, session, 1.0)
    world.answer(leader, world.write(session, put("held", lease)))
    world.cut |= set(NAMES)
    world.run(5.0)
    assert all(m.raft.state is not State.LEADER for m in world.members.values())
    assert world.held(leader) == ["held"]
    world.cut.clear()
    assert world.held(world.leader()) == []
