"""Nine bugs, planted one at a time, and the simulator that must find each: `make mutants`.

Production code is not touched: a planted bug is a subclass that the simulator's assembly puts in
the place of the genuine part. The configuration is the one that runs clean seeds.

    python tests/sim/mutants.py [NAME ...] [--seeds N] [--first-seed S]
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from primacy.cluster.actions import Exclude, Plan, Swap
from primacy.cluster.agent import Agent
from primacy.cluster.view import View
from primacy.consensus.machine import Effect, Event, Persist, SnapshotMeta
from primacy.consensus.raft.messages import Message
from primacy.consensus.raft.node import State
from primacy.consensus.raft.replication import Replication
from primacy.coordination.api import Lease
from primacy.coordination.embedded.commands import Renewed
from primacy.coordination.embedded.member import StoreMember
from primacy.coordination.embedded.requests import (
    ClientRequest,
    MemberEffect,
    MemberEvent,
    RenewLease,
    Reply,
)
from primacy.engines.api import Observation
from primacy.model import Epoch
from primacy.sim.disk import Disk
from primacy.sim.engine_model import ModelEngine
from primacy.sim.member_host import MemberFiles, SeenRaft
from primacy.sim.node import Parts
from primacy.sim.run import Assembly, genuine, run_seed
from primacy.sim.settings import Setup

SEEDS_MAX = 400
DURATION_S = 60.0


# ---- Raft and the store


class ForgetsVotes(MemberFiles):
    """A vote is not persisted: the term is, whom this member voted for is not."""

    def persist(self, write: Persist, received: dict[SnapshotMeta, tuple[bytes, ...]]) -> None:
        if write.hard is not None:
            forgotten = msgspec.structs.replace(write.hard, voted_for=None)
            write = replace(write, hard=forgotten)
        super().persist(write, received)


class AnswersBeforeFsync(Disk):
    """An acknowledgement before its fsync: the writer is told at once."""

    def write(self, commit: Callable[[], None], then: Callable[[], None] | None = None) -> None:
        super().write(commit)
        if then is not None:
            self._world.after(0.0, self._owner, then)


class CountsOldTerms(Replication):
    """Commit by counting an entry of an older term (Raft, figure 8)."""

    def advance_commit(self) -> None:
        start_index, self.term_start_index = self.term_start_index, type(self.term_start_index)(0)
        super().advance_commit()
        self.term_start_index = start_index


class RaftThatCountsOldTerms(SeenRaft):
    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        self._replication.__class__ = CountsOldTerms
        return super().step(now_s, event)


class RenewsFromMemory(StoreMember):
    """A renewal is answered by whoever believes to lead, before its entry is applied."""

    def step(self, now_s: float, event: MemberEvent) -> list[MemberEffect]:
        if isinstance(event, ClientRequest) and isinstance(event.body, RenewLease):
            lease = event.body.lease
            known = self.kv.leases.get(lease)
            if self.raft.state is State.LEADER and known is not None:
                hidden = ClientRequest(-event.request_id, event.body)
                effects = self._without_hidden(super().step(now_s, hidden))
                return [*effects, Reply(event.request_id, Renewed(Lease(lease, known.ttl_s)))]
        return self._without_hidden(super().step(now_s, event))

    def _without_hidden(self, effects: list[MemberEffect]) -> list[MemberEffect]:
        return [each for each in effects if not (isinstance(each, Reply) and each.request_id < 0)]


# ---- the brain


class CountsStaleSeals(Agent):
    """A seal for an earlier epoch counts as one for the epoch to come."""

    def _view(self) -> View:
        view = super()._view()
        if view.store.primary is not None:
            return view
        epoch = Epoch(view.store.epoch + 1)
        seals = {
            node: note if node == view.node else msgspec.structs.replace(note, epoch=epoch)
            for node, note in view.store.seals.items()
        }
        return replace(view, store=replace(view.store, seals=seals))


class ShrinksBeforeTheMarker(Agent):
    """A member leaves the recorded set before it is cut off and a marker is held by the rest."""

    async def _act(self, step: Plan, view: View) -> None:
        record = view.store.durability
        primary = view.store.primary
        is_own = record is not None and primary is not None and record.epoch == primary.epoch
        if isinstance(step.action, Exclude) and record is not None and is_own:
            leaving = step.action.node
            members = tuple(each for each in record.members if each.node != leaving)
            if record.acks <= len(members) < len(record.members):
                smaller = msgspec.structs.replace(record, members=members)
                base_mod = view.store.durability_mod
                swap = Swap(record=smaller, base_mod=base_mod, reason=step.reason)
                step = Plan(action=swap, reason=step.reason)
        await super()._act(step, view)


class OpensBeforeTheRow(Agent):
    """The doors open once the row is written: nobody has acknowledged it, no D is recorded."""

    def _view(self) -> View:
        view = super()._view()
        store = view.store
        record, durability = store.primary, store.durability
        is_opening = (
            record is not None
            and durability is not None
            and record.node == view.node
            and durability.epoch < record.epoch
            and record.epoch in store.branches
        )
        if not is_opening or record is None or durability is None:
            return view
        own = msgspec.structs.replace(durability, epoch=record.epoch, acks=view.engine.sending.acks)
        return replace(view, store=replace(store, durability=own))


class SealsOneTooFew(Agent):
    """n - k seals are taken for enough."""

    def _view(self) -> View:
        view = super()._view()
        record = view.store.durability
        if view.store.primary is not None or record is None or record.acks == 0:
            return view
        weaker = msgspec.structs.replace(record, acks=record.acks + 1)
        return replace(view, store=replace(view.store, durability=weaker))


# ---- the database


class SilentWhileLockedOut(ModelEngine):
    """A member that is locked out counts as silent, although it acknowledges when it is let in."""

    def observation(self) -> Observation:
        seen = super().observation()
        shown = seen.replication
        in_effect = shown.acknowledges and shown.is_receiving
        return replace(seen, replication=replace(shown, acknowledges=in_effect))


# ---- how each is planted


def with_agent(agent: type[Agent]) -> Assembly:
    def assembly(setup: Setup) -> Parts:
        return replace(genuine(setup), agent=agent)

    return assembly


def with_engine(engine: type[ModelEngine]) -> Assembly:
    def assembly(setup: Setup) -> Parts:
        return replace(genuine(setup), engine=engine)

    return assembly


def with_disk(disk: type[Disk]) -> Assembly:
    def assembly(setup: Setup) -> Parts:
        return replace(genuine(setup), disk=disk)

    return assembly


def with_store(
    *,
    raft: type[SeenRaft] = SeenRaft,
    member: type[StoreMember] = StoreMember,
    files: type[MemberFiles] = MemberFiles,
) -> Assembly:
    def assembly(setup: Setup) -> Parts:
        parts = genuine(setup)
        store = replace(parts.store, raft=raft, member=member, files=files)
        return replace(parts, store=store)

    return assembly


MUTANTS: dict[str, Assembly] = {
    "vote-not-persisted": with_store(files=ForgetsVotes),
    "ack-before-fsync": with_disk(AnswersBeforeFsync),
    "commit-by-old-term": with_store(raft=RaftThatCountsOldTerms),
    "renewal-from-memory": with_store(member=RenewsFromMemory),
    "stale-seal-counted": with_agent(CountsStaleSeals),
    "shrunk-before-marker": with_agent(ShrinksBeforeTheMarker),
    "opened-before-row": with_agent(OpensBeforeTheRow),
    "sealed-one-too-few": with_agent(SealsOneTooFew),
    "silent-while-locked-out": with_engine(SilentWhileLockedOut),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the hunt for one planted bug came to."""

    name: str
    seed: int | None
    invariant: str
    at_s: float
    cpu_s: float
    tried: int

    def __str__(self) -> str:
        if self.seed is None:
            return f"{self.name:<22} NOT FOUND in {self.tried} seeds, {self.cpu_s:.1f} CPU s"
        return (
            f"{self.name:<22} seed {self.seed:<5} at {self.at_s:7.2f} s  {self.invariant:<32}"
            f" {self.tried} seeds, {self.cpu_s:.1f} CPU s"
        )


def hunt(name: str, *, first_seed: int, seeds: int) -> Found:
    """Run seeds until one breaks an invariant that holds for this seed without the bug."""
    began_s = time.process_time()
    for tried, seed in enumerate(range(first_seed, first_seed + seeds), 1):
        verdict = run_seed(seed, DURATION_S, assembly=MUTANTS[name])
        if verdict.broken is not None and run_seed(seed, DURATION_S).broken is None:
            return Found(
                name=name,
                seed=seed,
                invariant=verdict.broken.name,
                at_s=verdict.at_s,
                cpu_s=time.process_time() - began_s,
                tried=tried,
            )
    cpu_s = time.process_time() - began_s
    return Found(name=name, seed=None, invariant="", at_s=0.0, cpu_s=cpu_s, tried=seeds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(MUTANTS))
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    parser.add_argument("--first-seed", type=int, default=1)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in MUTANTS]
    if unknown:
        parser.error(f"no such bug: {', '.join(unknown)}; there are {', '.join(MUTANTS)}")
    found = []
    for name in options.names:
        result = hunt(name, first_seed=options.first_seed, seeds=options.seeds)
        sys.stdout.write(f"{result}\n")
        sys.stdout.flush()
        found.append(result)
    caught = sum(1 for each in found if each.seed is not None)
    sys.stdout.write(f"{caught} of {len(found)} found\n")
    return 0 if caught == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
