"""The long-lived processes of a host: `primacy run` and `primacy router`.

    primacy run      the store's member, the brain beside the database, and the keeper of the router
    primacy router   the clients' doors; it outlives an agent that restarts

Stopping `primacy run` (SIGTERM, SIGINT) leaves database, guard and router running: an upgrade of
the agent is no outage. A primary whose agent stays away is killed by its guard at the deadline.
"""

import asyncio
import contextlib
import importlib
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

import primacy
from primacy.cli.assemble import Parts, agent_of, hooks_of, router_of, store_client, store_server
from primacy.cli.config_keeper import ConfigKeeper
from primacy.cli.preflight import serves_http
from primacy.cli.witness import WitnessTasks
from primacy.clock import Clock, SystemClock
from primacy.cluster.showing import Window
from primacy.config import Config
from primacy.config.changes import digest
from primacy.coordination.api import Store
from primacy.coordination.embedded.server import StoreServer
from primacy.engines.process import SEARCH_PATH
from primacy.errors import PrimacyError
from primacy.model import NodeId
from primacy.runtime import loops
from primacy.runtime.files import DiskFull
from primacy.runtime.launching import Launch, launch
from primacy.runtime.processes import Watched, reap, watch
from primacy.telemetry import Counted, Event, Sink

SOURCES = str(Path(primacy.__file__).resolve().parent.parent)
"""Where this very version of the program stands: a router of another one is not started."""

SWITCH_INTERVAL_S = 0.001
"""How long another thread (the HTTP API's, a driver's) may keep the interpreter while the agent's
loop waits for it. Python's own 5 ms add up over the steps of one renewal."""

ROUTER_AGAIN_AFTER_S = 0.5
"""A router that exits is started again after this long."""
STORE_AGAIN_AFTER_S = 1.0
"""A member of the store whose disk was full looks for space after this long."""


def run_node(
    config: Config, node: str, *, path: Path, launcher: Path | None, is_json: bool
) -> None:
    """Runs until SIGTERM or SIGINT. Errors: those of the parts, when no retry can mend them."""
    name = NodeId(node)
    clock = SystemClock()
    events = event_sink(clock, name, is_json=is_json)
    parts = Parts(config, path.absolute(), name, clock, events, launcher)
    life = Life()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    run_dir = config.state_dir(node) / "run"
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    with pid_file(run_dir / "agent.pid"):
        loops.run(_until_signal(lambda: _node(parts, life), life))
    sys.stderr.flush()
    if life.is_to_begin_again:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    os._exit(0)  # All is closed: the interpreter's own end would only keep the next agent waiting.


def run_router(config: Config, node: str, *, path: Path, is_json: bool) -> None:
    """Runs until SIGTERM or SIGINT."""
    name = NodeId(node)
    clock = SystemClock()
    events = event_sink(clock, name, is_json=is_json)
    run_dir = config.state_dir(node) / "run"
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    with pid_file(run_dir / "router.pid", note=router_digest(config)):
        loops.run(
            _until_signal(lambda: _router(Parts(config, path.absolute(), name, clock, events)))
        )


class Life:
    """Of this process: its name for `status`, and how it ends: for good, or to begin again with
    whatever is installed by then.

    What takes its time to end goes first, while the lease is still renewed: the time without an
    agent is what a primary must outlive.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(4)
        self.is_to_begin_again = False
        self._end: Callable[[], object] = lambda: None
        self._slow: asyncio.Task[None] | None = None

    def ends_by(self, end: Callable[[], object]) -> None:
        self._end = end

    def ends_first(self, slow: "asyncio.Task[None]") -> None:
        self._slow = slow

    def end(self) -> None:
        if self._slow is None or self._slow.done():
            self._end()
            return
        self._slow.add_done_callback(lambda _: self._end())
        self._slow.cancel()

    def begin_again(self) -> None:
        self.is_to_begin_again = True
        self.end()


async def _node(parts: Parts, life: Life) -> None:
    counted, window = Counted(parts.events), Window()
    parts = replace(parts, events=counted)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        store = await stack.enter_async_context(
            store_client(parts.config, parts.clock, near=parts.node)
        )
        server = store_server(parts, on_leader=store.led_by)
        tasks.create_task(_keep_store(server, parts), name="store")
        files = ConfigKeeper(
            parts.path, parts.node, life.name, store=store, clock=parts.clock, events=parts.events
        )
        tasks.create_task(files.run(), name="config-keeper")
        keeper = RouterKeeper(parts)
        tasks.create_task(keeper.run(), name="router-keeper")
        if parts.node in parts.config.data_nodes:
            hooks = hooks_of(parts)
            agent = await stack.enter_async_context(
                agent_of(parts, store, window, hooks, life=life.name, restart=life.begin_again)
            )
            tasks.create_task(hooks.run(), name="hooks")
            tasks.create_task(agent.run(), name="agent")
        else:
            tasks.create_task(_witness(parts, life, store), name="witness")
        if serves_http(parts.config):
            api = tasks.create_task(_api(parts, server, window, counted), name="api")
            life.ends_first(api)


async def _witness(parts: Parts, life: Life, store: Store) -> None:
    waiting = WitnessTasks(
        parts.node, life.name, store=store, clock=parts.clock, events=parts.events
    )
    await waiting.asked_to_begin_again()
    life.begin_again()


async def _api(parts: Parts, server: StoreServer, window: Window, counted: Counted) -> None:
    """Begins when the member does, so that its imports are in nobody's way at the start."""
    await server.is_open.wait()
    http = await asyncio.to_thread(importlib.import_module, "primacy.cli.assemble_http")
    await http.api_server(parts, window=window, server=server, counted=counted).run()


async def _keep_store(server: StoreServer, parts: Parts) -> None:
    """This host's member of the store. While its disk is full it is no member, and the brain goes
    on with the others: it has to end what this host leads, and to say why.

    Each life is a task of its own: a group that fails in it leaves a cancellation counted there.
    """
    while True:
        try:
            await asyncio.get_running_loop().create_task(server.run(), name="store-life")
        except* DiskFull as full:
            reason = str(leaf_of(full))
            parts.events(Event("store-stopped", {"node": parts.node, "reason": reason}))
        await parts.clock.sleep(STORE_AGAIN_AFTER_S)


def leaf_of(error: BaseException) -> BaseException:
    """The first error of a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _router(parts: Parts) -> None:
    async with store_client(parts.config, parts.clock, near=parts.node) as store:
        await router_of(parts, store).run()


def router_digest(config: Config) -> str:
    """Names the settings by which a router runs: one with others is started again."""
    shown = config.model_dump_json(include={"router", "nodes", "cluster"})
    return digest(shown)


class RouterKeeper:
    """Keeps this host's router running. One that an earlier agent started is not doubled, unless it
    was started with other settings: then it ends, and its clients connect again."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._pid_file = parts.config.state_dir(parts.node) / "run" / "router.pid"

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            watched = self._running() or self._start()
            if watched is not None:
                await watched.exit_future(loop)
                reap(watched.name.pid)
                watched.close()
                self._parts.events(Event("router-exited", {"node": self._parts.node}))
            await self._parts.clock.sleep(ROUTER_AGAIN_AFTER_S)

    def _running(self) -> Watched | None:
        try:
            number, *note = self._pid_file.read_text().split()
            pid = int(number)
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        watched = watch(pid) if b"router" in command else None
        if watched is not None and note != [router_digest(self._parts.config)]:
            self._parts.events(Event("router-outdated", {"pid": pid}))
            watched.kill(signal.SIGTERM)
        return watched

    def _start(self) -> Watched | None:
        """By the launcher if there is one: clients keep their connections while the agent's unit is
        stopped. Its events go where the starter's go."""
        parts = self._parts
        arguments = ["router", "--config", str(parts.path), "--node", parts.node]
        what = Launch(
            argv=[sys.executable, "-P", "-m", "primacy.cli.main", *arguments],
            environment={"PYTHONPATH": SOURCES, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"},
        )
        try:
            return watch(launch(what, launcher=parts.launcher))
        except PrimacyError as error:
            parts.events(Event("router-not-started", {"reason": str(error)}))
            return None


async def _until_signal(work: Callable[[], Awaitable[None]], life: Life | None = None) -> None:
    """SIGTERM and SIGINT cancel the work, and so does `life`; it cleans up and ends."""
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    if running is None:
        return
    end: Callable[[], object] = running.cancel
    if life is not None:
        life.ends_by(running.cancel)
        end = life.end
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await work()


@contextmanager
def pid_file(path: Path, *, note: str = "") -> Iterator[None]:
    """Says who runs, for operators and tests; removed at a clean end."""
    path.write_text(f"{os.getpid()} {note}".rstrip() + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def event_sink(clock: Clock, node: NodeId, *, is_json: bool) -> Sink:
    """One line per event on standard error. A line for which there is no space is left out: the
    host goes on."""

    def write(event: Event) -> None:
        wall_s = clock.wall_s()
        if is_json:
            fields = {"at_s": round(wall_s, 3), "node": node, "event": event.name, **event.fields}
            line = msgspec.json.encode(fields).decode()
        else:
            line = f"{wall_s:.3f} {node} {event}"
        with contextlib.suppress(OSError):
            sys.stderr.write(line + "\n")

    return write
