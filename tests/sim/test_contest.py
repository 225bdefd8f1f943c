"""Clients that fight for the same keys: what they do in a run, and that a wrong answer ends it."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from tests.sim.mutants import MUTANTS

from primacy.coordination.api import RangeResult, Txn
from primacy.coordination.embedded.commands import Answer, Commit, Committed, Write
from primacy.coordination.embedded.member import StoreMember
from primacy.coordination.embedded.requests import (
    ClientRequest,
    MemberEffect,
    MemberEvent,
    Read,
    Reply,
)
from primacy.sim.node import Parts
from primacy.sim.run import Assembly, genuine, run_seed
from primacy.sim.settings import Setup

SEED = 4
SEEDS_MAX = 20
DURATION_S = 30.0


def lying(lie: Callable[[Txn | None, Answer], Answer]) -> Assembly:
    """Members that answer clients of the contest, and nobody else, with a lie."""

    class Liar(StoreMember):
        def step(self, now_s: float, event: MemberEvent) -> list[MemberEffect]:
            if isinstance(event, ClientRequest):
                asked = contested(event)
                if asked is not None:
                    LIED[event.request_id, self.raft.node] = asked[0]
            return [self.lied(each) for each in super().step(now_s, event)]

        def lied(self, effect: MemberEffect) -> MemberEffect:
            key = (effect.request_id, self.raft.node) if isinstance(effect, Reply) else None
            if not isinstance(effect, Reply) or key not in LIED:
                return effect
            return Reply(effect.request_id, lie(LIED[key], effect.body))

    def assembly(setup: Setup) -> Parts:
        LIED.clear()
        parts = genuine(setup)
        return replace(parts, store=replace(parts.store, member=Liar))

    return assembly


LIED: dict[tuple[int, str], Txn | None] = {}
"""What was asked, by the number of the request and the member."""


def contested(event: ClientRequest) -> tuple[Txn | None] | None:
    match event.body:
        case Read(query) if query.key.startswith("contest/"):
            return (None,)
        case Write(body=Commit(txn)) if txn.then and txn.then[0].key.startswith("contest/"):
            return (txn,)
        case _:
            return None


def sees_nothing(asked: Txn | None, answer: Answer) -> Answer:
    del asked
    return RangeResult((), answer.revision) if isinstance(answer, RangeResult) else answer


def says_that_swaps_failed(asked: Txn | None, answer: Answer) -> Answer:
    """The branch that was taken is answered as the other one."""
    if asked is None or not asked.compares or not isinstance(answer, Committed):
        return answer
    empty = tuple(RangeResult((), answer.result.revision) for _ in asked.otherwise)
    said = msgspec.structs.replace(answer.result, is_success=False, results=empty)
    return Committed(said) if answer.result.is_success else answer


def test_operations_of_the_contest_overlap_and_some_answers_are_lost() -> None:
    verdict = run_seed(SEED, 60.0)
    assert verdict.broken is None
    windows = verdict.counters["window of a store history"]
    overlapping = verdict.counters["window with operations at a time"]
    assert windows > overlapping > 20
    started = {each.name for each in verdict.choices.clients}
    assert {"store-a", "store-b", "store-c", "store-client"} <= started


@pytest.mark.parametrize("lie", [sees_nothing, says_that_swaps_failed])
def test_a_wrong_answer_to_a_client_is_the_verdict_of_the_run(
    lie: Callable[[Txn | None, Answer], Answer],
) -> None:
    verdict = run_seed(SEED, DURATION_S, assembly=lying(lie))
    assert verdict.broken is not None
    assert verdict.broken.name == "linearizable-store"
    assert verdict.at_s < DURATION_S


def test_a_retried_write_that_is_applied_twice_is_found_by_the_histories() -> None:
    """Of the client of numbered writes `exactly-once` says it; of all others only this does."""
    texts = []
    for seed in range(1, SEEDS_MAX):
        broken = run_seed(seed, 60.0, assembly=MUTANTS["retry-applied-twice"]).broken
        texts.append("" if broken is None else broken.text)
        if "no order explains" in texts[-1]:
            return
    raise AssertionError(texts)


def test_a_swap_that_said_no_is_told_with_the_operations_that_show_it() -> None:
    verdict = run_seed(SEED, DURATION_S, assembly=lying(says_that_swaps_failed))
    assert verdict.broken is not None
    assert "no order explains" in verdict.broken.text
    assert "the comparison failed at revision" in verdict.broken.text
