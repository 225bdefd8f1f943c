"""Real server processes, driven through their control sockets as an agent drives its own."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import LOOPBACK, free_ports

import primacy
from primacy.driver import Connection
from primacy.engines.sqlite.control import (
    Done,
    Failed,
    Follow,
    Observe,
    OpenDoors,
    Reign,
    Reply,
    Request,
    SetAcks,
    Shown,
    raised,
    reply_in,
    request_frame,
)
from primacy.model import Epoch, Incarnation, NodeId
from primacy.replication.pull.acks import AckOn
from primacy.runtime.unixsockets import connect
from primacy.wire import FrameDecoder

WAIT_S = 20.0
SECRET = "0123456789abcdef0123456789abcdef"


def until(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        time.sleep(0.01)


class Line:
    """One connection of an agent."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_S)
        try:
            connect(self.socket, path)
        except OSError:
            self.socket.close()
            raise
        self._decoder = FrameDecoder()
        self._replies: dict[int, Reply] = {}
        self._number = 0

    def send(self, request: Request) -> int:
        self._number += 1
        self.socket.sendall(request_frame(self._number, request))
        return self._number

    def receive(self, number: int) -> Reply:
        """The replies of others are kept for them."""
        while number not in self._replies:
            data = self.socket.recv(65536)
            assert data, "the server has closed the connection"
            self._replies.update(reply_in(each) for each in self._decoder.feed(data))
        return self._replies.pop(number)

    def ask(self, request: Request) -> Reply:
        reply = self.receive(self.send(request))
        if isinstance(reply, Failed):
            raise raised(reply)
        return reply

    def close(self) -> None:
        self.socket.close()


class Controlled:
    """One node."""

    def __init__(self, folder: Path, name: str, **spec: Any) -> None:
        self.name = NodeId(name)
        self.folder = folder / name
        self.folder.mkdir()
        self.port, self.pull_port = free_ports(2)
        self.control = self.folder / "control.sock"
        secret = folder / "secret"
        secret.write_text(SECRET)
        self._path = self.folder / "spec.json"
        self._path.write_text(
            json.dumps(
                {
                    "cluster": "shop",
                    "node": name,
                    "directory": str(self.folder / "data"),
                    "port": self.port,
                    "control_path": str(self.control),
                    "pull": {"host": LOOPBACK, "port": self.pull_port, "secret_path": str(secret)},
                    **spec,
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line | None = None

    # ---- its life --------------------------------------------------------------------------

    def start(self) -> "Controlled":
        with (self.folder / "events").open("ab") as events:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "primacy.engines.sqlite.server", str(self._path)],
                stderr=events,
            )
        process = self._process

        def listens() -> bool:
            assert process.poll() is None, f"the server exited: {self.events}"
            try:
                Line(self.control).close()
            except OSError:
                return False
            return True

        until(listens)
        return self

    def kill(self) -> None:
        self._end_line()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        self._end_line()
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=WAIT_S)

    def wait(self) -> int:
        """Until it has exited by itself."""
        assert self._process is not None
        return self._process.wait(timeout=WAIT_S)

    @property
    def events(self) -> str:
        return (self.folder / "events").read_text()

    def _end_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    # ---- what an agent asks ----------------------------------------------------------------

    @property
    def line(self) -> Line:
        if self._line is None:
            self._line = Line(self.control)
        return self._line

    def ask(self, request: Request) -> Reply:
        return self.line.ask(request)

    def do(self, request: Request) -> int:
        reply = self.ask(request)
        assert isinstance(reply, Done)
        return reply.index

    def shown(self) -> Shown:
        reply = self.ask(Observe())
        assert isinstance(reply, Shown)
        return reply

    def follow(
        self, leader: "Controlled", epoch: int, *, acknowledge: bool = True, apply_until: int = 0
    ) -> None:
        request = Follow(
            upstream=leader.name,
            upstream_door=f"{LOOPBACK}:{leader.pull_port}",
            epoch=Epoch(epoch),
            incarnation=Incarnation(f"life-{self.name}"),
            acknowledge=acknowledge,
            leader_door=f"{LOOPBACK}:{leader.port}",
            apply_until=apply_until,
        )
        self.do(request)

    def lead(
        self, epoch: int, *others: "Controlled", acks: int, ack_on: AckOn = AckOn.RECEIVED
    ) -> int:
        """As the brain has it: the row, who follows, how many count, the doors."""
        row = self.do(Reign(epoch=Epoch(epoch)))
        self.do(SetAcks(acks=acks, ack_on=ack_on))
        for each in others:
            each.follow(self, epoch)
        until(lambda: self.holders(row) >= acks)
        self.do(OpenDoors())
        return row

    def holders(self, index: int) -> int:
        """How many have it and say so."""
        attached = self.shown().attached
        return sum(each.acknowledges and each.received.index >= index for each in attached)

    # ---- what a client sees ----------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"primacy://{LOOPBACK}:{self.port}/db"

    def connect(self, options: str = "", **named: Any) -> Connection:
        return primacy.connect(f"{self.url}{options}", isolation_level=None, **named)

    def execute(self, sql: str) -> None:
        connection = self.connect()
        try:
            connection.execute(sql)
        finally:
            connection.close()

    def rows(self, sql: str = "SELECT n FROM t ORDER BY n") -> list[int]:
        connection = self.connect("?target=any")
        try:
            return [row[0] for row in connection.execute(sql)]
        finally:
            connection.close()


@contextmanager
def nodes(folder: Path, names: str = "abc", **spec: Any) -> Iterator[list[Controlled]]:
    made = [Controlled(folder, name, **spec) for name in names]
    try:
        for each in made:
            each.start()
        yield made
    finally:
        for each in made:
            each.kill()
