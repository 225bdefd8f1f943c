"""`primacy demo` on SQLite: real agents, guards, routers and servers, and no system package."""

import random

import pytest
from tests.demos import a_promoted_laggard_fails, nothing_is_lost_by

from primacy.cli.demo_faults.catalogue import named, programme

pytestmark = pytest.mark.integration

FAULTS = (
    "crash",
    "switchover",
    "host",
    "hang",
    "partition",
    "replica-restart",
    "broken-replica",
    "no-restart",
    "disk-full",
    "power",
)
"""All else is `make demo`'s: these do something of their own to this engine's servers."""


def test_no_fault_loses_a_write() -> None:
    able = programme("all", engine="sqlite", rounds=1, chance=random.Random(1)).rounds
    names = {named(each) for each in able}
    nothing_is_lost_by("sqlite", [each for each in FAULTS if each in names], "fast", "--relay")


def test_a_laggard_that_is_promoted_on_purpose_fails_the_demo() -> None:
    a_promoted_laggard_fails("sqlite")
