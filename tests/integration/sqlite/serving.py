"""A real server process for the tests: started, killed, started again on the same data."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.ports import LOOPBACK, free_ports

import primacy
from primacy.driver import Connection
from primacy.engines.sqlite.protocol import FromClient, FromServer, frame_of, from_server
from primacy.wire import FrameDecoder

START_S = 20.0


class Served:
    """`spec` overrides fields of the server's specification; `limits` its limits."""

    def __init__(self, folder: Path, *, limits: dict[str, Any] | None = None, **spec: Any) -> None:
        (self.port,) = free_ports(1)
        self.folder = folder
        self._path = folder / "spec.json"
        self.spec: dict[str, Any] = {
            "cluster": "shop",
            "node": "a",
            "directory": str(folder / "data"),
            "port": self.port,
            "epoch": 1,
            "limits": limits or {},
            **spec,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"primacy://{LOOPBACK}:{self.port}/db"

    @property
    def events(self) -> str:
        return (self.folder / "events").read_text()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Begins to start."""
        self._path.write_text(json.dumps(self.spec))
        with (self.folder / "events").open("ab") as events:
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "primacy.engines.sqlite.server", str(self._path)],
                stderr=events,
            )
        return process

    def start(self) -> "Served":
        process = self.spawn()
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                raise AssertionError(f"the server exited: {self.events}")
            try:
                socket.create_connection((LOOPBACK, self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        raise AssertionError(f"the server does not listen: {self.events}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """Asked to; its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        code = self._process.wait(timeout=10)
        self._process = None
        return code

    def wait(self) -> int:
        """Until it has exited by itself."""
        assert self._process is not None
        return self._process.wait(timeout=10)

    def connect(self, options: str = "", **named: Any) -> Connection:
        return primacy.connect(f"{self.url}{options}", **named)

    def __enter__(self) -> "Served":
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.kill()


class Raw:
    """A client that speaks frames, and may speak them wrongly."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), 5)
        self._decoder = FrameDecoder()
        self._inbox: list[FromServer] = []

    def send(self, message: FromClient | bytes) -> None:
        self.socket.sendall(message if isinstance(message, bytes) else frame_of(message))

    def receive(self) -> FromServer | None:
        """None: the server has closed the connection."""
        while not self._inbox:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._inbox.extend(from_server(each) for each in self._decoder.feed(data))
        return self._inbox.pop(0)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()
