"""What a router knows of the cluster: one frozen value, made of the store's records. Pure.

Promises: the primary in it is never older than the newest linearizable read that was put in;
a watch that runs behind such a read cannot bring an older primary back.
Assumes: batches come in order, from the revision after the first read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from primacy.coordination.api import KeyValue, RangeResult, WatchBatch
from primacy.model import Epoch, NodeId, Revision
from primacy.replication.records import (
    DURABILITY_KEY,
    EPOCH_KEY,
    HANDOVER_KEY,
    NODES_PREFIX,
    PRIMARY_KEY,
    SEALS_PREFIX,
    SWITCHOVER_KEY,
    DurabilityRecord,
    Handover,
    NodeStatus,
    PrimaryRecord,
    SealNote,
    SwitchoverRequest,
    decoded,
)

R = TypeVar("R")

NEVER_S = float("-inf")


@dataclass(frozen=True, slots=True)
class Seen:
    """A node's status and when this router first saw it so, on its own clock."""

    status: NodeStatus
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterView:
    """Times are this host's CLOCK_BOOTTIME, so that a suspended router knows that it is old."""

    revision: Revision = Revision(0)
    confirmed_at_s: float = NEVER_S
    """When the newest linearizable read that was answered had been sent."""
    primary: PrimaryRecord | None = None
    primary_mod: Revision = Revision(0)
    primary_as_of: Revision = Revision(0)
    """The state of the store that `primary` is taken from; at or after `revision`."""
    epoch: Epoch = Epoch(0)
    """The counter: the epoch of the last primary record that was created."""
    durability: DurabilityRecord | None = None
    handover: Handover | None = None
    switchover_mod: Revision = Revision(0)
    """Of the request that has begun: its doors close next. 0: there is none."""
    switchover_seen_at_s: float = NEVER_S
    nodes: Mapping[NodeId, Seen] = field(default_factory=dict)
    seals: Mapping[NodeId, SealNote] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    """Keys of the last change whose value is not the record that it should be."""

    @property
    def open_epoch(self) -> Epoch | None:
        """The epoch of a primary whose own durability record stands, so that its doors open."""
        if self.primary is None or self.durability is None:
            return None
        return self.primary.epoch if self.durability.epoch == self.primary.epoch else None

    @property
    def is_switching(self) -> bool:
        """A planned change of the very primary that stands is under way."""
        if self.primary is None:
            return False
        if self.handover is not None and self.handover.epoch == self.primary.epoch:
            return True
        return self.switchover_mod > self.primary_mod


def listed(view: RouterView, found: RangeResult, *, sent_at_s: float, now_s: float) -> RouterView:
    """The view after a linearizable read of all the cluster's keys, sent at `sent_at_s`."""
    fresh = RouterView(
        revision=found.revision,
        confirmed_at_s=max(view.confirmed_at_s, sent_at_s),
        primary_as_of=found.revision,
    )
    seen = fresh if view.primary_as_of <= found.revision else _keeping_primary(fresh, view)
    changes = ((item.key, item) for item in found.items)
    return _changed(seen, changes, as_of=found.revision, now_s=now_s)


def followed(view: RouterView, batch: WatchBatch, *, now_s: float) -> RouterView:
    """The view after one batch of the watch. Confirms nothing: a watch may run behind."""
    changes = ((change.key, change.after) for change in batch.changes)
    after = _changed(view, changes, as_of=batch.revision, now_s=now_s)
    return replace(after, revision=max(view.revision, batch.revision))


def confirmed(view: RouterView, found: RangeResult, *, sent_at_s: float) -> RouterView:
    """The view after a linearizable read of the primary's key, sent at `sent_at_s`."""
    after = replace(view, confirmed_at_s=max(view.confirmed_at_s, sent_at_s), unreadable=())
    if found.revision < view.primary_as_of:
        return after
    item = found.items[0] if found.items else None
    return _with_primary(after, item, as_of=found.revision)


def _keeping_primary(fresh: RouterView, old: RouterView) -> RouterView:
    return replace(
        fresh,
        primary=old.primary,
        primary_mod=old.primary_mod,
        primary_as_of=old.primary_as_of,
    )


def _changed(
    view: RouterView,
    changes: Iterable[tuple[str, KeyValue | None]],
    *,
    as_of: Revision,
    now_s: float,
) -> RouterView:
    view = replace(view, unreadable=())
    nodes, seals = dict(view.nodes), dict(view.seals)
    unreadable: list[str] = []
    for key, item in changes:
        try:
            if key.startswith(NODES_PREFIX):
                _put_status(nodes, key, item, now_s)
            elif key.startswith(SEALS_PREFIX):
                _put_seal(seals, key, item)
            else:
                view = _with_record(view, key, item, as_of=as_of, now_s=now_s)
        except (msgspec.ValidationError, msgspec.DecodeError):
            unreadable.append(key)
    return replace(view, nodes=nodes, seals=seals, unreadable=(*view.unreadable, *unreadable))


def _with_record(
    view: RouterView, key: str, item: KeyValue | None, *, as_of: Revision, now_s: float
) -> RouterView:
    if key == PRIMARY_KEY:
        return view if as_of < view.primary_as_of else _with_primary(view, item, as_of=as_of)
    if key == DURABILITY_KEY:
        return replace(view, durability=_record(DurabilityRecord, item))
    if key == EPOCH_KEY:
        return replace(view, epoch=Epoch(0 if item is None else decoded(int, item.value)))
    if key == HANDOVER_KEY:
        return replace(view, handover=_record(Handover, item))
    if key == SWITCHOVER_KEY:
        request = _record(SwitchoverRequest, item)
        is_begun = item is not None and request is not None and request.is_begun
        mod = item.mod if item is not None and is_begun else Revision(0)
        return replace(view, switchover_mod=mod, switchover_seen_at_s=now_s)
    return view


def _record(kind: type[R], item: KeyValue | None) -> R | None:
    return None if item is None else decoded(kind, item.value)


def _with_primary(view: RouterView, item: KeyValue | None, *, as_of: Revision) -> RouterView:
    """A record that cannot be read counts as none: nothing is sent where nobody knows."""
    primary = None
    if item is not None:
        try:
            primary = decoded(PrimaryRecord, item.value)
        except (msgspec.ValidationError, msgspec.DecodeError):
            view = replace(view, unreadable=(*view.unreadable, PRIMARY_KEY))
    mod = Revision(0) if item is None else item.mod
    return replace(view, primary=primary, primary_mod=mod, primary_as_of=as_of)


def _put_status(nodes: dict[NodeId, Seen], key: str, item: KeyValue | None, now_s: float) -> None:
    node = NodeId(key.removeprefix(NODES_PREFIX))
    if item is None:
        nodes.pop(node, None)
    else:
        nodes[node] = Seen(decoded(NodeStatus, item.value), now_s)


def _put_seal(seals: dict[NodeId, SealNote], key: str, item: KeyValue | None) -> None:
    node = NodeId(key.removeprefix(SEALS_PREFIX))
    if item is None:
        seals.pop(node, None)
    else:
        seals[node] = decoded(SealNote, item.value)
