"""From a file's bytes to a `Config`, or to every mistake in our own words."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from primacy.config.problems import ConfigRejected, Problem
from primacy.config.rules import cross_problems
from primacy.config.secret import secret_problems
from primacy.config.sections import (
    Api,
    Cluster,
    Config,
    Durability,
    Hooks,
    MariaDb,
    Node,
    Router,
    Section,
    Sqlite,
)

CONFIG_NAME = "primacy.toml"
CONFIG_VARIABLE = "PRIMACY_CONFIG"
CONFIG_BYTES_MAX = 1 << 20
"""A file beyond this is no configuration of ours."""


def path_of(given: Path | None) -> Path:
    """The file to read: as given, else from the environment, else `primacy.toml` here."""
    return given or Path(os.environ.get(CONFIG_VARIABLE, CONFIG_NAME))


def load(path: Path) -> Config:
    """Read, parse and check the file, the secret's file mode included."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        rule = f"{error.strerror}. Write one with `primacy init`, or name it with --config"
        raise ConfigRejected(str(path), (Problem("file", "", rule),)) from error
    try:
        if len(raw) > CONFIG_BYTES_MAX:
            raise ValueError(f"longer than {CONFIG_BYTES_MAX} bytes")
        tree: dict[str, object] = tomllib.loads(raw.decode())
    except ValueError as error:
        raise ConfigRejected(str(path), (Problem("file", "", f"not TOML: {error}"),)) from error
    config, problems = parse(tree, path.absolute().parent)
    if config is not None:
        problems += secret_problems(config.secret_path)
    if problems or config is None:
        raise ConfigRejected(str(path), tuple(problems))
    return config


def parse(tree: dict[str, object], directory: Path) -> tuple[Config | None, list[Problem]]:
    """The value, and every mistake. Where a key is wrong, the rules between keys are still
    checked with that key left out; the value is None where too little is left for that."""
    problems: list[Problem] = []
    if "directory" in tree:
        problems.append(Problem("directory", repr(tree["directory"]), "unknown key"))
    rest: dict[str, object] = {**tree, "directory": directory}
    for _ in range(2):
        try:
            config = Config.model_validate(rest)
        except ValidationError as error:
            for each in error.errors():
                found = _problem(each["loc"], each["type"], each["msg"], each["input"])
                if found not in problems:
                    problems.append(found)
            rest = _judgeable(rest, [each["loc"] for each in error.errors()])
        else:
            return config, problems + list(cross_problems(config))
    return None, problems


# ---- pydantic's findings in our words ---------------------------------------------------------


def _problem(loc: tuple[int | str, ...], kind: str, message: str, value: object) -> Problem:
    # A union adds its branches' names to the place; a key never begins so.
    place = [str(each) for each in loc if not str(each).startswith(("literal[", "constrained-"))]
    if loc[:2] == ("durability", "acks"):
        place, message = place[:2], "must be a whole number >= 0, 'quorum' or 'all'"
    elif loc[:2] == ("mariadb", "settings"):
        place, message = place[:3], "must be a text, a whole number, true or false"
    key = ".".join(place)
    match kind:
        case "extra_forbidden":
            return Problem(key, _shown(value), f"unknown key{_suggestion(place)}")
        case "missing":
            return Problem(key, "", "is required")
        case "string_pattern_mismatch" if place[-1] in ("site", "preferred_site"):
            return Problem(key, _shown(value), "lower-case letters, digits, hyphens; at most 32")
        case "string_pattern_mismatch" if key == "sqlite.database":
            rule = "lower-case letters, digits, - and _, a letter first, at most 63 long"
            return Problem(key, _shown(value), rule)
        case "string_pattern_mismatch" if key == "cluster.name":
            rule = "lower-case letters, digits and hyphens, a letter first, at most 31 long"
            return Problem(key, _shown(value), rule)
        case _:
            rule = message.removeprefix("Input should be ").replace("Input should", "should")
            return Problem(key, _shown(value), rule)


def _suggestion(place: list[str]) -> str:
    sections: dict[str, type[Section]] = {
        "cluster": Cluster,
        "durability": Durability,
        "router": Router,
        "mariadb": MariaDb,
        "sqlite": Sqlite,
        "api": Api,
        "hooks": Hooks,
        "nodes": Node,
    }
    section = sections.get(place[0]) if len(place) > 1 else None
    known = sorted(section.model_fields if section else sections)
    close = difflib.get_close_matches(place[-1], known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _judgeable(
    tree: Mapping[str, object], places: list[tuple[int | str, ...]]
) -> dict[str, object]:
    """The tree without the keys that are wrong, so that the rules between the others can speak."""
    left = _without(tree, places)
    cluster, nodes = left.get("cluster"), left.get("nodes")
    known = cluster if isinstance(cluster, dict) else {}
    left["cluster"] = {"name": "unnamed", "engine": "mariadb", **known}
    if isinstance(nodes, dict):
        left["nodes"] = {
            name: node for name, node in nodes.items() if isinstance(node, dict) and "host" in node
        }
    return left


def _without(tree: Mapping[str, object], places: list[tuple[int | str, ...]]) -> dict[str, object]:
    left: dict[str, object] = {}
    for key, value in tree.items():
        inner = [place[1:] for place in places if place[0] == key]
        if not inner:
            left[key] = value
        elif all(inner) and isinstance(value, dict):
            left[key] = _without(value, inner)
    return left
