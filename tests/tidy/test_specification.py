"""Every action of a specification is in the table that says which functions carry it out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.spec.configurations import DEFAULTS, INVARIANTS, PARTS, PASSES, VARIANTS

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TABLES = {
    "failover": "docs/protocols/failover.md",
    "lease": "docs/protocols/lease.md",
    "lock": "docs/spec.md",
}


def text(spec: str) -> str:
    return (ROOT / f"spec/{spec}.tla").read_text()


def definitions(spec: str) -> dict[str, str]:
    """Name -> body, of all that a module defines."""
    parts = re.split(r"^(\w+)(?:\([^)]*\))? ==", text(spec), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def actions(spec: str) -> set[str]:
    defined = definitions(spec)
    steps = defined["Next"] + defined.get("Step", "")
    names = set(re.findall(r"\b[A-Z]\w+", steps)) & set(defined)
    return {name for name in names if "'" in defined[name] or "UNCHANGED" in defined[name]}


def rows(spec: str) -> Iterator[tuple[str, str]]:
    """Action and functions, as the table has them."""
    document = (ROOT / TABLES[spec]).read_text()
    table = document.split("| action | function | what happens |", 1)[1].split("\n\n", 1)[0]
    yield from re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE)


@pytest.mark.parametrize("spec", TABLES)
def test_every_action_is_mapped_to_its_functions(spec: str) -> None:
    mapped = [name for name, _ in rows(spec)]
    assert len(mapped) == len(set(mapped))
    assert set(mapped) == actions(spec) - {"Acknowledged"}


@pytest.mark.parametrize("spec", TABLES)
def test_every_function_of_a_table_is_there(spec: str) -> None:
    missing = []
    for action, functions in rows(spec):
        named = re.findall(r"`(\w+)\.(\w+)`", functions)
        assert named or functions.strip() == "-", action
        for module, function in named:
            files = [path for path in SOURCES if path.stem == module]
            pattern = re.compile(rf"^\s*(?:async )?def {function}\(", re.MULTILINE)
            if not any(pattern.search(path.read_text()) for path in files):
                missing.append(f"{action}: {module}.{function}")
    assert not missing, missing


@pytest.mark.parametrize("spec", TABLES)
def test_every_rule_of_a_specification_has_a_variant_that_must_be_rejected(spec: str) -> None:
    rules = set(re.findall(r'On\("([\w-]+)"\)', text(spec)))
    assert rules
    assert rules == {rule for rule, (_, bounds) in VARIANTS.items() if bounds.spec == spec}


@pytest.mark.parametrize("spec", TABLES)
def test_every_invariant_and_constant_is_given(spec: str) -> None:
    defined = definitions(spec)
    declared = text(spec).split("CONSTANTS", 1)[1].split("VARIABLES", 1)[0]
    names = set(re.findall(r"\b[A-Z]\w+", re.sub(r"\\\*.*", "", declared)))
    assert set(INVARIANTS[spec]) <= set(defined)
    assert names - {"Broken", "Idle"} == set(DEFAULTS[spec])


def test_every_part_is_used_by_a_configuration_that_holds() -> None:
    taken = {part for bounds in PASSES.values() for part in bounds.parts.split()}
    assert taken == PARTS == set(re.findall(r'Takes\("(\w+)"\)', text("failover")))
