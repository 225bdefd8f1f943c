"""A real store of three members, and the command line pointed at it; no agents, no databases."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.ports import free_ports

from primacy.clock import SystemClock
from primacy.consensus.raft.timing import Timing
from primacy.coordination.embedded.client import StoreClient
from primacy.coordination.embedded.server import StoreServer, StoreSettings
from primacy.model import Address, NodeId
from primacy.telemetry import ignore

NODES = ("a", "b", "c")
READY_WITHIN_S = 30.0
COMMAND_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A command line that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.out)
        return value


class Shop:
    """The store's members, each in its own loop and thread, so that one can be stopped alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "primacy.toml"
        numbers = iter(free_ports(2 * len(NODES)))
        self.peers = {NodeId(name): Address("127.0.0.1", next(numbers)) for name in NODES}
        self.doors = {NodeId(name): Address("127.0.0.1", next(numbers)) for name in NODES}
        self._stops: dict[NodeId, Stop] = {}
        self._write_files()

    def _write_files(self) -> None:
        lines = ["[cluster]", 'name = "shop"', 'engine = "mariadb"']
        for place, name in enumerate(self.peers):
            host = f"127.0.0.{place + 1}"
            lines += [f"[nodes.{name}]", f'host = "{host}"']
            lines += [
                f"peer_port = {self.peers[name].port}",
                f"store_port = {self.doors[name].port}",
            ]
        self.config.write_text("\n".join(lines))
        secret = self.folder / "primacy.secret"
        secret.touch(0o600)
        secret.write_text("0f" * 32)

    def start(self, node: NodeId) -> None:
        place = list(self.peers).index(node) + 1
        settings = StoreSettings(
            cluster="shop",
            node=node,
            members=self.peers,
            door=Address(f"127.0.0.{place}", self.doors[node].port),
            directory=self.folder / node,
            timing=Timing.for_lease(1.0),
        )
        stop = Stop()
        self._stops[node] = stop
        stop.thread = threading.Thread(target=lambda: asyncio.run(serve(settings, stop)))
        stop.thread.start()

    def stop(self, node: NodeId) -> None:
        stop = self._stops.pop(node)
        stop.ready.wait(READY_WITHIN_S)
        stop.ask()
        if stop.thread is not None:
            stop.thread.join(READY_WITHIN_S)

    def stop_all(self) -> None:
        for node in list(self._stops):
            self.stop(node)

    def client(self) -> StoreClient:
        places = {
            name: Address(f"127.0.0.{place + 1}", self.doors[name].port)
            for place, name in enumerate(self.doors)
        }
        return StoreClient(places, SystemClock(), random.Random(1), within_s=READY_WITHIN_S)

    def line(self, *arguments: str) -> list[str]:
        """A command line; what follows `--` stays behind it."""
        given = list(arguments)
        at = given.index("--") if "--" in given else len(given)
        given[at:at] = ["--config", str(self.config)]
        return [sys.executable, "-m", "primacy.cli.main", *given]

    def run(self, *arguments: str) -> Ended:
        done = subprocess.run(
            self.line(*arguments),
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def running(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """A command that goes on, until the block ends."""
        process = subprocess.Popen(
            self.line(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=COMMAND_WITHIN_S)


@dataclass(slots=True)
class Stop:
    """How a member's thread is asked to end."""

    ready: threading.Event = field(default_factory=threading.Event)
    loop: asyncio.AbstractEventLoop | None = None
    task: "asyncio.Task[None] | None" = None
    thread: threading.Thread | None = None

    def ask(self) -> None:
        if self.loop is not None and self.task is not None:
            self.loop.call_soon_threadsafe(self.task.cancel)


async def serve(settings: StoreSettings, stop: Stop) -> None:
    server = StoreServer(
        settings, clock=SystemClock(), chance=random.Random(settings.node), events=ignore
    )
    stop.loop, stop.task = asyncio.get_running_loop(), asyncio.current_task()
    stop.ready.set()
    try:
        await server.run()
    except asyncio.CancelledError:
        return  # The test asked for it.


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Three members that have elected a leader."""
    made = Shop(tmp_path_factory.mktemp("shop"))
    for node in made.doors:
        made.start(node)
    try:
        yield made
    finally:
        made.stop_all()
