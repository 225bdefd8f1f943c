"""Alarms, their pages and the metrics that they name belong together."""

import re
from pathlib import Path
from typing import Any  # YAML.

import yaml  # type: ignore[import-untyped]  # It has no types, and is here for this file alone.

DOCS = Path(__file__).parents[2] / "docs"
HEADINGS = ["What it means", "What to look at", "What to do"]
OF_PROMETHEUS = {"up"}


def rules() -> dict[str, dict[str, Any]]:  # YAML.
    text = (DOCS / "alarms.yml").read_text()
    tree: dict[str, Any] = yaml.safe_load(text)  # YAML.
    found = [rule for group in tree["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in found}) == len(found)
    return {rule["alert"]: rule for rule in found}


def documented() -> set[str]:
    """Every name that a query may use: a summary has a count and a sum."""
    text = (DOCS / "metrics.md").read_text()
    names = set(re.findall(r"^\| `(primacy_[a-z_]+)`", text, re.MULTILINE))
    summaries = re.findall(r"^\| `(primacy_[a-z_]+)` \|[^|]*\| summary", text, re.MULTILINE)
    return names | {f"{name}_{end}" for name in summaries for end in ("count", "sum")}


def test_every_alarm_has_its_page_and_every_page_its_alarm() -> None:
    pages = {path.stem for path in (DOCS / "runbooks").glob("*.md")} - {"README"}
    assert pages == set(rules())
    for name, rule in rules().items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_every_page_says_the_same_three_things_and_the_severity_of_its_alarm() -> None:
    for name, rule in rules().items():
        text = (DOCS / f"runbooks/{name}.md").read_text()
        assert text.startswith(f"# {name}\n")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS, name
        assert f"Severity: {rule['labels']['severity']}." in text, name


def test_every_page_is_indexed() -> None:
    index = (DOCS / "runbooks/README.md").read_text()
    for name, rule in rules().items():
        assert f"| [{name}]({name}.md) | {rule['labels']['severity']} |" in index


def test_every_metric_that_a_rule_names_exists() -> None:
    known = documented() | OF_PROMETHEUS
    for name, rule in rules().items():
        asked = set(re.findall(r"\b(primacy_[a-z_]+|up)\b", re.sub(r'"[^"]*"', "", rule["expr"])))
        assert asked, name
        assert asked <= known, (name, asked - known)


def test_every_metric_that_a_page_names_exists() -> None:
    for path in (DOCS / "runbooks").glob("*.md"):
        asked = set(re.findall(r"`(primacy_[a-z_]+)`", path.read_text()))
        assert asked <= documented(), path.name
