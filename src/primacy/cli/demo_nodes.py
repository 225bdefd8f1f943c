"""Three nodes on this machine: real agents, guards, routers and servers, each its own process.

The demo and the tests start them, kill them by their ids and start them again. Nothing here knows
anything that an operator of three hosts would not know: files, process ids, ports.
"""

import os
import random
import secrets
import signal
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from primacy.cli.demo_network import Loopback, Network
from primacy.clock import Clock
from primacy.config import DEFAULT_ENGINE, door_keys
from primacy.errors import Unavailable
from primacy.model import Address, NodeId
from primacy.runtime.ports import PortBlocks

STORE_PORTS = ("peer_port", "store_port")
"""What the members of the store and their clients say to each other."""
PARTS = ("agent", "guard", "router", "database")
GONE_WITHIN_S = 10.0
LAST_WORDS_BYTES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoNode:
    name: NodeId
    host: str
    ports: dict[str, int]
    state_dir: Path
    is_witness: bool = False
    """It votes and holds no data."""

    def address(self, port: str) -> Address:
        return Address(self.host, self.ports[port])

    @property
    def log(self) -> Path:
        return self.state_dir / "agent.log"


class LocalCluster:
    """The processes of a cluster whose nodes all live here. Use `stop_all` when done."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        names: Sequence[str],
        settings: str = "",
        witnesses: Collection[str] = (),
        network: Network | None = None,
    ) -> None:
        """`network` is closed by its owner, after `stop_all`."""
        self.root = root
        self.network: Network = Loopback() if network is None else network
        self._clock = clock
        self._agents: dict[NodeId, subprocess.Popen[bytes]] = {}
        self._ports = PortBlocks(random.Random())
        doors = door_keys(_engine_in(settings), has_database=True)
        ports = iter(self._ports.take(len(names) * len(doors)))
        self.nodes = {
            NodeId(name): DemoNode(
                name=NodeId(name),
                host=self.network.host(NodeId(name)),
                ports={port: next(ports) for port in doors},
                state_dir=root / name,
                is_witness=name in witnesses,
            )
            for name in names
        }
        self.network.open({name: tuple(node.ports.values()) for name, node in self.nodes.items()})
        self.config_path = root / "primacy.toml"
        """As the clients of this machine see the cluster."""
        self._write_configs(settings)

    def config_of(self, node: NodeId) -> Path:
        """The file of one node: the same for all but for where its peers are found."""
        seen = {other: self.network.seen(other, node) for other in self.nodes}
        seen[node] = self.nodes[node].host
        is_same = all(seen[other] == self.nodes[other].host for other in self.nodes)
        return self.config_path if is_same else self.root / f"primacy-{node}.toml"

    def _write_configs(self, settings: str) -> None:
        hosts = {name: node.host for name, node in self.nodes.items()}
        self._write_config(self.config_path, settings, hosts)
        for name in self.nodes:
            path = self.config_of(name)
            if path != self.config_path:
                seen = {each: self.network.seen(each, name) for each in self.nodes}
                self._write_config(path, settings, seen | {name: hosts[name]})
        secret = self.root / "primacy.secret"
        secret.touch(0o600)
        secret.write_text(secrets.token_hex(32))

    def _write_config(self, path: Path, settings: str, hosts: Mapping[NodeId, str]) -> None:
        lines = [settings.rstrip(), ""]
        for node in self.nodes.values():
            lines.append(f"[nodes.{node.name}]")
            lines.append(f'host = "{hosts[node.name]}"')
            lines.append(f'state_dir = "{node.state_dir}"')
            if node.is_witness:
                lines.append("database = false")
            lines.extend(f"{port} = {number}" for port, number in node.ports.items())
            lines.append("")
        path.write_text("\n".join(lines))

    # ---- life and death

    def start(self, node: NodeId) -> None:
        """Start the node's agent, as its service manager would after a boot, or after its death.
        One that runs is left alone."""
        if self.is_agent_alive(node):
            return
        self._reap(node)
        state_dir = self.nodes[node].state_dir
        state_dir.mkdir(parents=True, exist_ok=True)
        run = [sys.executable, "-m", "primacy.cli.main", "run"]
        with self.nodes[node].log.open("ab") as log:
            self._agents[node] = subprocess.Popen(
                self.network.inside(
                    node, [*run, "--config", str(self.config_of(node)), "--node", node]
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_all(self) -> None:
        for node in self.nodes:
            self.start(node)

    def pids(self, node: NodeId) -> dict[str, int]:
        """What runs of a node now: agent, router, guard, database."""
        run = self.nodes[node].state_dir / "run"
        found = {}
        if self.is_agent_alive(node):
            found["agent"] = self._agents[node].pid
        files = {"router": "router.pid", "database": "db.pid"}
        for part, file in files.items():
            pid = _live_pid(run / file, of=str(self.root))
            if pid is not None:
                found[part] = pid
        guard = _live_guard(self.nodes[node].state_dir / "guard" / "guard.json", of=str(self.root))
        if guard is not None:
            found["guard"], found["database"] = guard
        elif "database" in found:
            parent = _live_parent(found["database"], of=str(self.root))
            if parent is not None:
                found["guard"] = parent
        return found

    def signal_part(self, node: NodeId, part: str, number: signal.Signals) -> None:
        """Signal one process of a node. `Unavailable` where it does not run."""
        pid = self.pids(node).get(part)
        if pid is None:
            raise Unavailable(f"{node} runs no {part}", hint="Wait until the node is healthy.")
        os.kill(pid, number)
        if part == "agent" and number is signal.SIGKILL:
            self._reap(node)  # Until then it would pass for one that runs.

    def kill_host(self, node: NodeId) -> None:
        """SIGKILL everything of a node at one instant, as a power cut would."""
        self.signal_parts(self.pids(node), signal.SIGKILL)
        self._reap(node)

    def signal_parts(self, pids: Mapping[str, int], number: signal.Signals) -> None:
        """Signal these processes at one instant, the agent first; one that has gone is skipped."""
        for part in PARTS:
            if part in pids:
                with _already_gone():
                    os.kill(pids[part], number)

    def _reap(self, node: NodeId) -> None:
        agent = self._agents.pop(node, None)
        if agent is not None:
            agent.wait(GONE_WITHIN_S)

    def is_agent_alive(self, node: NodeId) -> bool:
        agent = self._agents.get(node)
        return agent is not None and agent.poll() is None

    def check_agents(self) -> None:
        """`Unavailable` with the last words of an agent that has ended by itself."""
        for node, agent in self._agents.items():
            if agent.poll() is not None:
                said = self.nodes[node].log.read_bytes()[-LAST_WORDS_BYTES:]
                words = said.decode(errors="replace").strip() or "nothing"
                raise Unavailable(
                    f"{node}'s agent ended with exit code {agent.returncode}; it said: {words}",
                    hint="Mend what it says, and start again.",
                )

    async def stop_all(self) -> None:
        """End every process that this cluster started, databases last."""
        deadline_s = self._clock.now_s() + GONE_WITHIN_S
        while True:
            for node in self.nodes:
                self.kill_host(node)  # Again: what was just starting had no number to be found by.
            if not any(self.pids(node) for node in self.nodes):
                break
            if self._clock.now_s() > deadline_s:
                raise Unavailable(
                    f"processes are left: {[self.pids(node) for node in self.nodes]}",
                    hint="End them by their ids.",
                )
            await self._clock.sleep(0.05)
        self._ports.close()


def _engine_in(settings: str) -> str:
    engine = tomllib.loads(settings).get("cluster", {}).get("engine", DEFAULT_ENGINE)
    return str(engine)


@contextmanager
def there(file: Path) -> Iterator[None]:
    """`Unavailable` where a file of a node is not there: another fault has taken its disk away."""
    try:
        yield
    except FileNotFoundError as error:
        raise Unavailable(f"there is no {file}", hint="Wait until it is healthy.") from error


@contextmanager
def _already_gone() -> Iterator[None]:
    """A process that ended by itself in the meantime is as dead as we wanted it."""
    try:
        yield
    except ProcessLookupError:
        return


def _live_pid(file: Path, *, of: str) -> int | None:
    """The process that the file names, if it lives and is ours."""
    try:
        pid = int(file.read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    return pid if _is_ours(pid, of=of) else None


def _live_guard(file: Path, *, of: str) -> tuple[int, int] | None:
    """Guard and database, from the moment at which the guard runs: a database that is starting has
    not written its own number yet."""
    try:
        told = msgspec.json.decode(file.read_bytes(), type=_GuardTold)
    except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    guard, database = told.guard[0], told.database[0]
    return (guard, database) if _is_ours(guard, of=of) and _is_ours(database, of=of) else None


class _GuardTold(msgspec.Struct, frozen=True):
    """What the guard's status file is read for: process id and start time of each."""

    guard: tuple[int, int]
    database: tuple[int, int]


def _is_ours(pid: int, *, of: str) -> bool:
    """It lives, and its command line names our directory: a number may have been given to somebody
    else's process meanwhile."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX" and of in command


def _live_parent(pid: int, *, of: str) -> int | None:
    """None where its own is gone: whoever inherits orphans, the system's first process perhaps, is
    not ours to kill."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parent if _is_ours(parent, of=of) else None
