"""One member of the store, whole: disk, peers, state and the door for clients.

Promises  Once `run` has begun, it goes on until it is cancelled or the disk fails. Where the disk
          is only full (`DiskFull`), it may be run again. What was
          acknowledged is there after any crash. No step holds the loop for longer than a piece of
          a snapshot takes.
Assumes   Its directory belongs to this node alone; the others' addresses are those of voters.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from primacy.clock import Clock
from primacy.consensus.machine import (
    Excluded,
    Install,
    LeaderChanged,
    Persist,
    Send,
    SendSnapshot,
    SnapshotMeta,
    TransferLeadership,
)
from primacy.consensus.raft.messages import Message
from primacy.consensus.raft.node import Raft, Restored, Timing
from primacy.coordination.embedded.commands import LEASE_TTL_MIN_S
from primacy.coordination.embedded.door import Door
from primacy.coordination.embedded.kv import Kv
from primacy.coordination.embedded.member import MemberLimits, StoreMember
from primacy.coordination.embedded.pieces import Restorer
from primacy.coordination.embedded.requests import (
    Changes,
    ClientRequest,
    MemberEffect,
    Replaced,
    Reply,
    SnapshotDue,
)
from primacy.model import Address, NodeId
from primacy.runtime.host import HostCounts, MachineHost
from primacy.runtime.snapshots import SnapshotStore
from primacy.runtime.stalls import StallMeter
from primacy.runtime.storage import MemberStorage
from primacy.runtime.tcp import TcpTransport
from primacy.telemetry import Event, Sink

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """What one member needs to know. `members` holds every voter's peer address, its own too."""

    cluster: str
    node: NodeId
    members: Mapping[NodeId, Address]
    door: Address
    """Where clients connect."""
    directory: Path
    timing: Timing
    limits: MemberLimits = field(default_factory=MemberLimits)
    ttl_min_s: float = LEASE_TTL_MIN_S
    """The same on all members; lower than the default only in tests."""


def ignore_leader(_: NodeId) -> None:
    """Nobody asks this member who leads."""


class StoreServer:
    """`run()` in a task of the owner. `member` is there to look at once `is_open` is set."""

    def __init__(
        self,
        settings: StoreSettings,
        *,
        clock: Clock,
        chance: random.Random,
        events: Sink,
        on_leader: Callable[[NodeId], None] = ignore_leader,
    ) -> None:
        """`chance` spreads elections and reconnects; safety does not rest on it. `on_leader` hears
        at once whom this member follows, itself included."""
        self._settings = settings
        self._on_leader = on_leader
        self._clock = clock
        self._chance = chance
        self._events = events
        self._member: StoreMember | None = None
        self._host: MachineHost[Message, ClientRequest, MemberEffect] | None = None
        self._door: Door | None = None
        self._snapshots: SnapshotStore | None = None
        self._installs: asyncio.Queue[SnapshotMeta] = asyncio.Queue()
        self.is_open = asyncio.Event()
        """Set when both doors listen. Whether the store has a leader is another matter."""

    @property
    def member(self) -> StoreMember | None:
        return self._member

    @property
    def counts(self) -> HostCounts:
        """Of the member's host, since its start; zeros before it."""
        return self._host.counts if self._host is not None else HostCounts()

    @property
    def stalls(self) -> StallMeter | None:
        """How late this event loop is; None before the start."""
        return self._host.stalls if self._host is not None else None

    def transfer_leadership(self, to: NodeId) -> None:
        """Ask this member, if it leads, to hand the lead to `to`. Nothing is promised."""
        if self._host is not None:
            self._host.post(TransferLeadership(to))

    async def run(self) -> None:
        """`Rejected` for a taken port or another's directory, `Conflict` for one in use, `Corrupt`
        for damage; after the start in an ExceptionGroup. After `DiskFull` it may be run again."""
        settings = self._settings
        storage = await asyncio.to_thread(
            MemberStorage.open,
            settings.directory,
            cluster=settings.cluster,
            node=settings.node,
            sink=self._events,
        )
        with storage:
            self._snapshots = storage.snapshots
            kv = await asyncio.to_thread(self._restored_state, storage.restored)
            peers = {n: a for n, a in settings.members.items() if n != settings.node}
            transport = TcpTransport(
                settings.node,
                cluster=settings.cluster,
                listen=settings.members[settings.node],
                peers=peers,
                clock=self._clock,
                chance=self._chance,
                sink=self._events,
            )
            member = self._assembled(storage.restored, kv)
            host = MachineHost[Message, ClientRequest, MemberEffect](
                member,
                storage=storage,
                transport=transport,
                encode=_ENCODER.encode,
                decode=_DECODER.decode,
                clock=self._clock,
                on_effect=self._on_effect,
                sink=self._events,
            )
            door = Door(member, settings.door, self._clock, post=host.post, events=self._events)
            self._member, self._host, self._door = member, host, door
            async with door, transport, asyncio.TaskGroup() as tasks:
                tasks.create_task(host.run(), name="store-host")
                tasks.create_task(door.run(), name="store-door")
                tasks.create_task(self._install_received(), name="store-install")
                self.is_open.set()

    def _restored_state(self, restored: Restored) -> Kv:
        """Blocks: at the start there is nobody to hold up."""
        if restored.snapshot.index == 0:
            return Kv(ttl_min_s=self._settings.ttl_min_s)
        return self._read_back(restored.snapshot)

    def _read_back(self, meta: SnapshotMeta) -> Kv:
        """Blocks for the disk; `Corrupt` names what is wrong."""
        restorer = Restorer()
        if self._snapshots is not None:
            for piece in self._snapshots.load(meta):
                restorer.add(piece)
        return Kv.from_restorer(restorer, ttl_min_s=self._settings.ttl_min_s)

    def _assembled(self, restored: Restored, kv: Kv) -> StoreMember:
        settings, now_s = self._settings, self._clock.now_s()
        raft = Raft(
            settings.node,
            tuple(settings.members),
            settings.timing,
            restored,
            self._chance.random,
            now_s,
        )
        return StoreMember(
            settings.node, raft, kv, restored=restored, now_s=now_s, limits=settings.limits
        )

    # ---- what the member says ---------------------------------------------------------------

    def _on_effect(self, effect: MemberEffect) -> None:
        match effect:
            case Reply():
                self._opened_door.on_reply(effect)
            case Changes(batch):
                self._opened_door.on_changes(batch)
            case Replaced():
                self._opened_door.on_replaced()
            case LeaderChanged(leader, term):
                self._events(Event("store-leader", {"leader": leader, "term": term}))
                if leader is not None:
                    self._on_leader(leader)
            case Excluded(by, reason):
                self._events(Event("store-excluded", {"by": by, "reason": reason}))
            case SnapshotDue():
                self._save()
            case Install(meta):
                self._installs.put_nowait(meta)
            case Send() | Persist() | SendSnapshot():
                raise TypeError(f"the host carries out {type(effect).__name__} itself")

    def _save(self) -> None:
        if self._member is not None and self._host is not None:
            meta, pieces = self._member.freeze()
            self._host.save_snapshot(meta, pieces)

    async def _install_received(self) -> None:
        """Reads a received snapshot off the loop, then has the member take it over between two
        steps. One that a newer has replaced meanwhile is ignored by the member."""
        while True:
            meta = await self._installs.get()
            kv = await asyncio.to_thread(self._read_back, meta)
            if self._member is not None and self._host is not None:
                member = self._member
                self._host.call(
                    lambda now_s, member=member, meta=meta, kv=kv: member.installed(  # type: ignore[misc]  # mypy cannot infer a lambda with defaults.
                        now_s, meta, kv
                    )
                )

    @property
    def _opened_door(self) -> Door:
        if self._door is None:
            raise TypeError("the member spoke before its door was made")
        return self._door
