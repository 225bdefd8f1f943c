"""What goes into a member of the store beside Raft's events, and what comes out. Values only."""

from dataclasses import dataclass

import msgspec

from primacy.consensus import machine
from primacy.consensus.machine import (
    Excluded,
    Install,
    LeaderChanged,
    Persist,
    Send,
    SendSnapshot,
    SnapshotMeta,
)
from primacy.consensus.raft.messages import Message
from primacy.coordination.api import LeaseId, Range, WatchBatch
from primacy.coordination.embedded.commands import Answer, OpenSession, Write

# ---- requests -------------------------------------------------------------------------------


class Read(msgspec.Struct, frozen=True, tag=True):
    op: Range
    is_serializable: bool = False
    """Answer from what is applied here, however old; needs no leader."""


class RenewLease(msgspec.Struct, frozen=True, tag=True):
    lease: LeaseId


class ReadStatus(msgspec.Struct, frozen=True, tag=True):
    pass


RequestBody = Read | RenewLease | ReadStatus | OpenSession | Write


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A client asks. The number is the host's own, new for each request; `Reply` brings it back."""

    request_id: int
    body: RequestBody


# ---- effects --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    request_id: int
    body: Answer


@dataclass(frozen=True, slots=True)
class Changes:
    """A revision was applied here: tell the watches."""

    batch: WatchBatch


@dataclass(frozen=True, slots=True)
class Replaced:
    """The state was replaced by a snapshot: watches have a gap and must look again."""


@dataclass(frozen=True, slots=True)
class SnapshotDue:
    """Call `freeze` now, before the next step; write it; then deliver `SnapshotSaved(meta)`."""

    meta: SnapshotMeta


MemberEvent = machine.Event[Message] | ClientRequest
MemberEffect = (
    Send[Message]
    | Persist
    | SendSnapshot
    | Install
    | LeaderChanged
    | Excluded
    | Reply
    | Changes
    | Replaced
    | SnapshotDue
)
