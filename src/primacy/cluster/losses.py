"""What one node alone had: saved by the engine, told in the store, taken back or given up.

A record stands in the store until an operator dismisses it, whatever becomes of the node: its
files are on its host, and nobody else remembers.
"""

from dataclasses import replace

import msgspec

from primacy.clock import Clock
from primacy.cluster import actions as do
from primacy.cluster.transactions import diverged_ended_txn, diverged_txn, loss_txn
from primacy.cluster.view import View
from primacy.cluster.viewing import Records, Sight
from primacy.coordination.api import Store
from primacy.engines.api import Branch, Diverged, Engine
from primacy.errors import PrimacyError
from primacy.model import NodeId
from primacy.replication.records import DIVERGED_PREFIX, DivergedRecord, decoded


class Losses:
    """Of one node. Errors: those of the engine and the store."""

    def __init__(
        self, *, store: Store, engine: Engine, clock: Clock, sight: Sight, records: Records
    ) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._sight = sight
        self._records = records

    async def save(self, action: do.SaveDiverged, view: View) -> None:
        """Told in the store before it is known here: what follows may cut."""
        found = await self._engine.save_diverged(
            [
                Branch(epoch=each.epoch, node=each.node, first_sequence=each.first_sequence)
                for each in action.branches
            ]
        )
        if found.count:
            await self._store.txn(diverged_txn(self._record(view.node, found)))
            if not found.is_errant:  # No change of the primary gave those up.
                await self._note_in_history(view.node, found)
        self._sight.diverged[action.epoch] = found

    async def rewind(self, action: do.Rewind) -> None:
        """What did not go this way goes by a clone: it is not tried again."""
        try:
            await self._engine.rewind(action.found, action.primary, action.epoch)
        except PrimacyError as error:
            why = f"the rewind did not succeed: {error.what}"
            self._sight.diverged[action.epoch] = replace(action.found, obstacle=why)
            raise
        await self._end(action.found, "rewound")
        del self._sight.diverged[action.epoch]

    async def ended(self, view: View, how: str) -> None:
        """What became of the data that held them."""
        for found in view.diverged.values():
            if found.count:
                await self._end(found, how)
        if how == "cloned":
            self._sight.diverged.clear()

    async def _end(self, found: Diverged, how: str) -> None:
        held = await self._store.range(f"{DIVERGED_PREFIX}{found.ident}")
        if not held.items:
            return  # Somebody removed it from the store: the files are still there.
        item = held.items[0]
        known = decoded(DivergedRecord, item.value)
        told = msgspec.structs.replace(known, ended=how, obstacle=found.obstacle)
        await self._store.txn(diverged_ended_txn(told, item.mod))

    async def _note_in_history(self, node: NodeId, found: Diverged) -> None:
        """The epoch that has not what was saved says how much that is."""
        held = self._records.history.get(found.epoch)
        lost_count = found.count - found.own_count
        if held is None or held[0].lost_count >= lost_count:
            return
        record, mod = held
        told = msgspec.structs.replace(
            record, lost_count=lost_count, lost_path=f"{node}:{found.path}"
        )
        await self._store.txn(loss_txn(told, mod))

    def _record(self, node: NodeId, found: Diverged) -> DivergedRecord:
        return DivergedRecord(
            ident=found.ident,
            node=node,
            epoch=found.epoch,
            count=found.count - found.own_count,
            own_count=found.own_count,
            first=found.first,
            last=found.last,
            tables=found.tables,
            path=found.path,
            is_certain=found.is_certain,
            obstacle=found.obstacle,
            is_errant=found.is_errant,
            wall_s=self._clock.wall_s(),
            # Heartbeats only: there is nothing for a person to do.
            dismissed_wall_s=0.0 if found.count > found.own_count else self._clock.wall_s(),
        )
