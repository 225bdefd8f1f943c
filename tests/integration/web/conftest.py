"""The API on a real socket, over the memory store; no agent, and a page that the test writes."""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # JSON.

import pytest
import uvloop
from starlette.types import ASGIApp
from tests.ports import free_ports

from primacy.clock import SystemClock
from primacy.cluster.control.requests import Desk
from primacy.cluster.control.roster import Roster
from primacy.cluster.showing import Window
from primacy.config import ENGINES
from primacy.coordination.memory import MemoryStore
from primacy.model import Address, NodeId
from primacy.replication.records import (
    DurabilityPolicy,
)
from primacy.runtime.page import PageWriter, boottime_ns
from primacy.runtime.processes import ProcessName
from primacy.telemetry import Event
from primacy.web.access import Access
from primacy.web.app import Api
from primacy.web.facts import ProcessFacts
from primacy.web.looking import Look, Node
from primacy.web.serving import ApiServer

A, B, W = NodeId("a"), NodeId("b"), NodeId("w")
CONFIGURED = DurabilityPolicy(
    request_id="", acks=1, on_timeout="block", timeout_s=10.0, degrade_failover="refuse"
)
ROSTER = Roster(cluster="shop", members=(A, B, W), data_nodes=(A, B), durability=CONFIGURED)
CAPABILITIES = ENGINES["mariadb"]
TOKEN = "0123456789abcdef-token"
WITHIN_S = 20.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:  # JSON.
        return json.loads(self.body)


@dataclass(slots=True)
class Served:
    """One API, and what it stands on."""

    door: Address
    page: Path
    window: Window
    store: MemoryStore
    events: list[Event] = field(default_factory=list)
    opened: threading.Event = field(default_factory=threading.Event)

    def note(self, event: Event) -> None:
        self.events.append(event)
        if event.name == "api-open":
            self.opened.set()

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def url(self) -> str:
        return f"http://{self.door}"

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Said:
        request = urllib.request.Request(self.url + path, method=method)
        if body is not None:
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
                return Said(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Said(error.code, error.read(), dict(error.headers))

    def post(self, path: str, body: object, *, token: str | None = None) -> Said:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.ask(path, method="POST", body=body, headers=headers)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.door.host, self.door.port), timeout=WITHIN_S)


@contextmanager
def serving(
    folder: Path,
    *,
    token: str | None = None,
    is_loopback: bool = True,
    door: Address | None = None,
    is_awaited: bool = True,
) -> Iterator[Served]:
    """The agent's side is a loop in a thread, as in life; the API's is in a thread of its own."""
    clock = SystemClock()
    served = Served(
        door=door or Address("127.0.0.1", free_ports(1)[0]),
        page=folder / "page",
        window=Window(),
        store=MemoryStore(clock),
    )
    node = Node(
        cluster="shop",
        name=A,
        is_witness=False,
        lease_ttl_s=3.0,
        status_stale_after_s=3.0,
        page=served.page,
    )

    @asynccontextmanager
    async def build() -> AsyncIterator[ASGIApp]:
        look = Look(
            node, window=served.window, count=ProcessFacts, member=served.store, clock=clock
        )
        yield Api(
            desk=Desk(served.store, ROSTER, clock),
            singles=dict.fromkeys(ROSTER.members, served.store),
            look=look,
            capabilities=CAPABILITIES,
            access=Access(token, is_loopback=is_loopback),
            events=served.events.append,
        ).application()

    server = ApiServer(served.door, build, clock=clock, events=served.note)
    with _agent_loop(server):
        if is_awaited:
            assert served.opened.wait(WITHIN_S), served.events
        yield served


@contextmanager
def _agent_loop(server: ApiServer) -> Iterator[None]:
    loop = uvloop.new_event_loop()
    task = loop.create_task(server.run())

    def run() -> None:
        task.add_done_callback(lambda _: loop.stop())
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(WITHIN_S)
        assert not thread.is_alive()


@contextmanager
def open_page(path: Path, *, left_s: float, epoch: int = 5) -> Iterator[PageWriter]:
    """The guard's page, open for `left_s`."""
    now_ns = boottime_ns()
    with PageWriter(path, guard=ProcessName(1, 1)) as writer:
        writer.arm(epoch, now_ns + int(left_s * 1e9), now_ns=now_ns)
        writer.open(epoch, now_ns=now_ns)
        yield writer


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Loopback, without a token."""
    with serving(tmp_path) as made:
        yield made
