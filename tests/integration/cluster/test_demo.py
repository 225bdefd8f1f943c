"""`primacy demo` on MariaDB, and the control that shows that it can fail."""

import random

from tests.demos import a_promoted_laggard_fails, nothing_is_lost_by

from primacy.cli.demo_faults.catalogue import named, programme

FIRST = ("crash", "host", "switchover", "laggard")


def test_no_fault_of_processes_hosts_and_plans_loses_a_write() -> None:
    nothing_is_lost_by("mariadb", FIRST, "default")


def test_no_further_fault_that_can_happen_here_loses_a_write() -> None:
    """One after another on one cluster; what needs root is left out elsewhere."""
    able = programme("all", engine="mariadb", rounds=1, chance=random.Random(1)).rounds
    names = [named(each) for each in able]
    nothing_is_lost_by("mariadb", [each for each in names if each not in FIRST], "fast")


def test_a_relay_cuts_as_well_where_nobody_is_root() -> None:
    """Every node in its place, and a router's clients with it: only what nodes hear is cut."""
    nothing_is_lost_by("mariadb", ["partition", "store-cut"], "fast", "--relay")


def test_a_laggard_that_is_promoted_on_purpose_fails_the_demo() -> None:
    a_promoted_laggard_fails("mariadb")
