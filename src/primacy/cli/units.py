"""The two service units of a node, as text. Pure.

    primacy-CLUSTER-NODE-guard.service   the launcher; guards, databases and the router are in it
    primacy-CLUSTER-NODE.service         the agent: stopped, upgraded and started without the others

Promises  Stopping or killing the agent's unit reaches nothing of the guard's. Stopping the guard's
          unit ends the database. Neither takes a capability away that the guard needs (CAP_KILL).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from primacy.errors import Rejected
from primacy.model import NodeId

UNSAFE = "\"'\\"
MARK = "# Written by `primacy service install`; `primacy service uninstall` removes it."
MASKED = "# It masked: "
"""Then the names of the units that it masked, which uninstalling unmasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What the units of one node name."""

    cluster: str
    node: NodeId
    python: Path
    sources: Path
    """Where the package `primacy` is imported from."""
    config: Path
    state_dir: Path

    @property
    def agent_unit(self) -> str:
        return f"primacy-{self.cluster}-{self.node}.service"

    @property
    def guard_unit(self) -> str:
        return f"primacy-{self.cluster}-{self.node}-guard.service"

    @property
    def launcher(self) -> Path:
        """The launcher's socket."""
        return launcher_socket(self.state_dir)


def launcher_socket(state_dir: Path) -> Path:
    return state_dir / "launcher" / "launcher.sock"


def guard_unit(placed: Placed, masked: tuple[str, ...]) -> str:
    """The launcher's. KillMode=process: a launcher that dies takes nothing with it; told to stop,
    it ends its children itself and waits for them."""
    arguments: list[object] = [
        "-S",
        "-P",
        "-m",
        "primacy.runtime.launcher",
        placed.launcher,
    ]
    return f"""{_head(masked)}
[Unit]
Description=primacy: guard, database and router of {placed.node} in {placed.cluster}
After=local-fs.target network.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={_command(placed.python, arguments)}
Environment={_quoted(f"PYTHONPATH={placed.sources}")}
Restart=always
RestartSec=100ms
KillMode=process
TimeoutStopSec=60
OOMPolicy=continue
OOMScoreAdjust=-600
LimitNOFILE=65535
LimitMEMLOCK=infinity
LimitCORE=0
TasksMax=infinity
# No CapabilityBoundingSet and no User: a guard that is root and drops the database's user needs
# CAP_KILL, or the kernel cannot deliver the signal that ends the database with its guard.

[Install]
WantedBy=multi-user.target
"""


def agent_unit(placed: Placed, masked: tuple[str, ...]) -> str:
    """The agent's. KillMode=mixed: what it started itself (a clone, a hook) ends with it."""
    arguments: list[object] = ["run", "--config", placed.config, "--node", placed.node]
    arguments = ["-P", "-m", "primacy.cli.main", *arguments, "--launcher", placed.launcher]
    return f"""{_head(masked)}
[Unit]
Description=primacy: agent of {placed.node} in {placed.cluster}
Wants=network-online.target {placed.guard_unit}
After=network-online.target {placed.guard_unit}
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={_command(placed.python, arguments)}
Environment={_quoted(f"PYTHONPATH={placed.sources}")}
Restart=always
RestartSec=100ms
KillMode=mixed
TimeoutStopSec=15
OOMScoreAdjust=-800
LimitNOFILE=65535

[Install]
WantedBy=multi-user.target
"""


def is_ours(text: str) -> bool:
    return text.startswith(MARK + "\n")


def masked_by(text: str) -> tuple[str, ...]:
    """The units that the one who wrote this unit masked."""
    for line in text.splitlines():
        if line.startswith(MASKED):
            return tuple(line.removeprefix(MASKED).split())
    return ()


def _head(masked: tuple[str, ...]) -> str:
    return "\n".join([MARK, *([MASKED + " ".join(masked)] if masked else [])])


def _command(program: Path, arguments: Iterable[object]) -> str:
    """In arguments (texts and paths) `$` is a variable; in the program's own path it is itself."""
    if any(letter in UNSAFE for letter in str(program)):
        raise Rejected(
            f"systemd starts no program whose path has quotes or backslashes: {program}",
            hint="Install primacy elsewhere.",
        )
    words = (_quoted(str(word)).replace("$", "$$") for word in arguments)
    return " ".join([_quoted(str(program)), *words])


def _quoted(word: str) -> str:
    """As systemd reads it: `%` is a specifier; quotes and backslashes are escaped within quotes."""
    escaped = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    is_plain = escaped and all(letter.isalnum() or letter in "-_./:=%@+," for letter in escaped)
    return escaped if is_plain else f'"{escaped}"'
