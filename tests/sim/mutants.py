"""Bugs, planted one at a time, and the simulator that must find each: `make mutants`.

Production code is not touched: a planted bug is a subclass (in the modules `planted_*`) that the
simulator's assembly puts in the place of the genuine part. The configuration is the one that runs
clean seeds.

    python -m tests.sim.mutants [NAME ...] [--seeds N] [--first-seed S] [--resume FILE]
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any  # The parts that a planted bug replaces, by name.

import msgspec
from tests.sim import planted_cluster as cluster
from tests.sim import planted_server as server
from tests.sim import planted_sqlite as sqlite
from tests.sim import planted_store as store

from primacy.sim.node import Parts
from primacy.sim.run import Assembly, genuine, run_seed
from primacy.sim.settings import EngineName, Setup

SEEDS_MAX = 2000
SEEDS_AT_ONCE = 5
DURATION_S = 60.0


def with_parts(**parts: Any) -> Assembly:
    """`Parts` with these in the place of the genuine ones."""

    def assembly(setup: Setup) -> Parts:
        return replace(genuine(setup), **parts)

    return assembly


def with_store(**parts: Any) -> Assembly:
    """The same for the parts of a store member."""

    def assembly(setup: Setup) -> Parts:
        whole = genuine(setup)
        return replace(whole, store=replace(whole.store, **parts))

    return assembly


SQLITE: dict[str, Assembly] = {
    "tail-committed-at-start": with_parts(engine=sqlite.CommitsItsTail),
    "cut-without-the-note": with_parts(engine=sqlite.CutsUnnoted),
    "cut-once-more": with_parts(engine=sqlite.CutsAgain),
    "unfit-and-forgotten": with_parts(engine=sqlite.ForgetsItIsUnfit),
    "answer-before-its-disk": with_parts(engine=sqlite.AnswersBeforeItsDisk),
    "excluded-counts": with_parts(engine=sqlite.CountsTheExcluded),
    "session-outlives-epoch": with_parts(engine=sqlite.OutlivesItsEpoch),
    "any-epoch-is-served": with_parts(engine=sqlite.WelcomesAnyEpoch),
    "index-without-chain": with_parts(engine=sqlite.PullsByIndex),
    "received-for-applied": with_parts(engine=sqlite.ReportsReceived),
    "silent-for-the-moment": with_parts(engine=sqlite.SilentForTheMoment),
    "applied-uncompared": with_parts(engine=sqlite.AppliesUncompared),
}
"""Of the SQLite engine's own rules: run with its model."""

MUTANTS: dict[str, Assembly] = {
    # disks
    "vote-not-persisted": with_store(files=store.ForgetsVotes),
    "ack-before-fsync": with_parts(disk=store.AnswersBeforeFsync),
    "fsync-failure-ignored": with_parts(disk=store.IgnoresFailedFsync),
    "rot-served": with_store(files=store.ServesRot),
    "wiped-voter-returns": with_store(files=store.KeepsItsName),
    # Raft
    "commit-by-old-term": with_store(raft=store.RaftThatCountsOldTerms),
    "read-before-no-op": with_store(raft=store.RaftThatReadsAtOnce),
    "read-without-a-round": with_store(raft=store.RaftThatReadsWithoutARound),
    "cut-by-a-late-duplicate": with_store(raft=store.RaftCutByDuplicates),
    "votes-for-anybody": with_store(raft=store.RaftThatVotesForAnybody),
    "leader-counts-unsynced": with_store(raft=store.RaftThatCountsUnsynced),
    "read-by-the-round-before": with_store(raft=store.RaftThatReadsByTheRoundBefore),
    # the store's state, its clients, its leases
    "renewal-from-memory": with_store(member=store.RenewsFromMemory),
    "retry-applied-twice": with_store(member=store.AppliesRetries),
    "lease-cut-by-new-leader": with_store(member=store.CutsLeases),
    "lease-cut-by-restart": with_store(member=store.CutsLeasesAfterRestarts),
    "watch-skips": with_parts(client=store.SkippingClient),
    "lease-from-the-reply": with_parts(holding=store.TrustsTheReply),
    "fence-after-the-lease": with_parts(holding=store.HoldsTooLong),
    # the brain
    "stale-seal-counted": with_parts(agent=cluster.CountsStaleSeals),
    "shrunk-before-marker": with_parts(agent=cluster.ShrinksBeforeTheMarker),
    "opened-before-row": with_parts(agent=cluster.OpensBeforeTheRow),
    "sealed-one-too-few": with_parts(agent=cluster.SealsOneTooFew),
    "degraded-before-recorded": with_parts(agent=cluster.DegradesFirst),
    "sent-swap-given-up": with_parts(agent=cluster.GivesUpSentSwaps),
    "broken-applier-acks": with_parts(agent=cluster.HidesABrokenApplier),
    "offer-with-open-doors": with_parts(agent=cluster.OpenOfferer),
    "row-not-awaited": with_parts(agent=cluster.CountsAttached),
    "ack-for-a-former-life": with_parts(agent=cluster.AcknowledgesForItsFormerLife),
    "marker-not-awaited": with_parts(agent=cluster.SwapsBeforeTheMarker),
    "taken-over-early": with_parts(agent=cluster.TakesOverEarly),
    "degraded-for-lossy": with_parts(agent=cluster.TakesDegradedForLossy),
    # its hands, and what its transactions compare
    "adoption-settles-nothing": with_parts(agent=cluster.UnsettledAdopter),
    "adoption-on-trust": with_parts(holding=cluster.AdoptsOnTrust),
    "lease-before-the-page": with_parts(agent=cluster.EarlyReleaser),
    "swap-after-its-lease": with_parts(client=cluster.SwapsAfterItsLease),
    "swap-whatever-stands": with_parts(client=cluster.SwapsWhateverStands),
    "offer-after-its-request": with_parts(client=cluster.OffersAfterTheRequest),
    # the database
    "silent-while-locked-out": with_parts(engine=server.SilentWhileLockedOut),
    "ack-before-recorded": with_parts(engine=server.AcknowledgesUnrecorded),
    "epoch-not-checked": with_parts(engine=server.NeverRefuses),
    "follower-returns": with_parts(engine=server.ReturnsToItsPrimary),
    "seal-before-note": with_parts(engine=server.PublishesBeforeTheNote),
    "relay-log-thrown-away": with_parts(engine=server.ThrowsRelayLogAway),
    "sequence-without-epoch": with_parts(engine=server.ShipsBySequence),
    "excluded-not-detached": with_parts(engine=server.LocksAndKeepsReceivers),
    "wiped-behind-old-seal": with_parts(engine=server.WipesWithoutANewName),
    "cut-off-in-name": with_parts(engine=server.ExcludesInName),
    "clone-keeps-its-name": with_parts(engine=server.ClonesUnderItsName),
    # the guard
    "passes-after-deadline": with_parts(page=server.PassesAfterTheDeadline),
    "page-of-the-last-boot": with_parts(page=server.StaysAfterBoot),
    "second-win-releases": with_parts(guard=server.ClosesAndLetsLive),
    **SQLITE,
}


def engine_of(name: str) -> EngineName:
    return "sqlite" if name in SQLITE else "mariadb"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the hunt for one planted bug came to."""

    name: str
    seed: int | None = None
    invariant: str = ""
    at_s: float = 0.0
    cpu_s: float = 0.0
    tried: int = 0

    def __str__(self) -> str:
        if self.seed is None:
            return f"{self.name:<26} NOT FOUND in {self.tried} seeds, {self.cpu_s:.1f} CPU s"
        return (
            f"{self.name:<26} seed {self.seed:<5} at {self.at_s:7.2f} s  {self.invariant:<32}"
            f" {self.tried} seeds, {self.cpu_s:.1f} CPU s"
        )


def hunt(name: str, *, first_seed: int, seeds: int) -> Found:
    """Run seeds until one breaks an invariant that holds for this seed without the bug."""
    began_s, engine = time.process_time(), engine_of(name)
    for tried, seed in enumerate(range(first_seed, first_seed + seeds), 1):
        verdict = run_seed(seed, DURATION_S, engine=engine, assembly=MUTANTS[name])
        if verdict.broken is not None and run_seed(seed, DURATION_S, engine=engine).broken is None:
            return Found(
                name=name,
                seed=seed,
                invariant=verdict.broken.name,
                at_s=verdict.at_s,
                cpu_s=time.process_time() - began_s,
                tried=tried,
            )
    return Found(name=name, seed=None, cpu_s=time.process_time() - began_s, tried=seeds)


def hunts(
    wanted: dict[str, Found], *, first_seed: int, seeds: int, workers: int
) -> Iterator[Found]:
    """A few seeds for each in turn, until all are found or have had their number: what is easy is
    told soon. Each result counts everything that was tried so far."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running: dict[Future[Found], Found] = {}

        def go_on(so_far: Found) -> None:
            step = min(SEEDS_AT_ONCE, seeds - so_far.tried)
            future = pool.submit(
                hunt, so_far.name, first_seed=first_seed + so_far.tried, seeds=step
            )
            running[future] = so_far

        for each in wanted.values():
            if each.tried < seeds:
                go_on(each)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                so_far = running.pop(future)
                result = msgspec.structs.replace(
                    result, tried=so_far.tried + result.tried, cpu_s=so_far.cpu_s + result.cpu_s
                )
                if result.seed is None and result.tried < seeds:
                    go_on(result)
                yield result


def known(resume: Path | None) -> dict[str, Found]:
    """What an earlier run has found or tried, by name."""
    if resume is None or not resume.exists():
        return {}
    lines = resume.read_bytes().splitlines()
    return {each.name: each for each in (msgspec.json.decode(line, type=Found) for line in lines)}


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--only", action="append", default=[], help="this bug, and others so named")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--resume", type=Path, help="keep results here, and go on from what it has")
    options = parser.parse_args()
    options.names = [*options.names, *options.only] or list(MUTANTS)
    unknown = [name for name in options.names if name not in MUTANTS]
    if unknown:
        parser.error(f"no such bug: {', '.join(unknown)}; there are {', '.join(MUTANTS)}")
    return options


def main() -> int:
    options = options_of()
    earlier = known(options.resume)
    results = {name: earlier.get(name, Found(name=name)) for name in options.names}
    for each in results.values():
        if each.seed is not None:
            sys.stdout.write(f"{each} (found before)\n")
    wanted = {name: each for name, each in results.items() if each.seed is None}
    limits = {"first_seed": options.first_seed, "seeds": options.seeds}
    for result in hunts(wanted, **limits, workers=options.workers):
        results[result.name] = result
        if result.seed is not None or result.tried >= options.seeds:
            sys.stdout.write(f"{result}\n")
            sys.stdout.flush()
        if options.resume is not None:
            with options.resume.open("ab") as file:
                file.write(msgspec.json.encode(result) + b"\n")
    caught = sum(1 for each in results.values() if each.seed is not None)
    sys.stdout.write(f"{caught} of {len(results)} found\n")
    return 0 if caught == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
