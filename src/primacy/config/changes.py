"""What is different between two files, and what a running cluster can take over one node at a time.

Promises  Whatever is not named here is refused: names, addresses, directories, secrets and programs
          are not changed under a running cluster, and nothing that comes over the store names a
          program to be run.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from primacy.config.problems import Problem
from primacy.config.sections import Config

LEASE_FACTOR_MAX = 3.0
"""While the cluster rolls, old and new agents elect the store's leader together: a heartbeat of the
slowest must fit into the election time-out of the quickest."""

ABSENT = "(absent)"

TAKEN_OVER = re.compile(
    r"""cluster\.(profile|lease_ttl_s|failovers_before_back_off|preferred_site|return_to_preferred)
    | durability\.\w+
    | router\.\w+
    | mariadb\.(?!(server|install_db|backup|binlog|client|user)$)\w+
    | mariadb\.settings\.[\w-]+
    | sqlite\.(?!(database|users_file)$)\w+
    | nodes\.[\w-]+\.(site|priority|never_promote)""",
    re.VERBOSE,
)
"""Keys that a rolling restart brings into force."""

NEEDS_SERVER = re.compile(
    r"""mariadb\.(innodb_buffer_pool_mb|settings\..*)
    | sqlite\.(?!clone_mb_s$)\w+
    | durability\.ack_on""",
    re.VERBOSE,
)
"""Read by the server when it starts."""

LOADS_CODE = re.compile(
    r"(plugin|init[_-](file|connect|slave)|load[_-]|wsrep|secure[_-]file)", re.I
)
"""Server variables that make it load or run something: for the file on each host only."""


@dataclass(frozen=True, slots=True)
class Changed:
    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


def digest(text: str) -> str:
    """Names a file's content."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changes(before: Config, after: Config) -> list[Changed]:
    """By key, in order. Values that are given and values that are the default are the same."""
    old, new = dict(_flat(_tree(before))), dict(_flat(_tree(after)))
    return [
        Changed(key, old.get(key, ABSENT), new.get(key, ABSENT))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def refusals(before: Config, after: Config) -> list[Problem]:
    """Every change that a running cluster does not take over, and why."""
    found = [
        Problem(
            each.key,
            each.after,
            "is not changed under a running cluster. Stop it, and change the file on every host",
        )
        for each in changes(before, after)
        if not TAKEN_OVER.fullmatch(each.key)
    ]
    found += [
        Problem(each.key, each.after, "makes the server load or run something: only by hand")
        for each in changes(before, after)
        if each.key.startswith("mariadb.settings.") and LOADS_CODE.search(each.key)
    ]
    old_s, new_s = before.lease_ttl_s, after.lease_ttl_s
    if max(old_s, new_s) > LEASE_FACTOR_MAX * min(old_s, new_s):
        rule = f"from {old_s} s: at most threefold at once. Go in two steps"
        found.append(Problem("cluster.lease_ttl_s", f"{new_s}", rule))
    return found


def needs_server_restart(changed: list[Changed]) -> bool:
    return any(NEEDS_SERVER.fullmatch(each.key) for each in changed)


def _tree(config: Config) -> Mapping[str, object]:
    return config.model_dump(mode="json")


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", repr(value)
