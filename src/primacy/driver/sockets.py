"""Carries out the core's effects over a blocking socket."""

import contextlib
import socket
import threading
import time
from typing import TypeVar

from primacy.driver.effects import Close, Connect, Effect, Pause, Receive, Send, Steps

T = TypeVar("T")

READ_BYTES = 256 << 10
SILENT_PEER_MS = 10_000
"""How long the kernel waits for a peer's acknowledgement before it gives the connection up."""


class BlockingRunner:
    """One thread at a time runs steps; `send_aside` may be called from another."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sending = threading.Lock()

    def run(self, steps: Steps[T]) -> T:
        """To the end. What interrupts it closes the connection first: the core hears of it."""
        try:
            effect = next(steps)
            while True:
                try:
                    told = self._carry_out(effect)
                except OSError as error:
                    effect = steps.throw(error)
                except BaseException as error:  # noqa: BLE001 - thrown on: the core raises it again.
                    effect = steps.throw(error)
                else:
                    effect = steps.send(told)
        except StopIteration as end:
            result: T = end.value
            return result

    def send_aside(self, data: bytes) -> None:
        """Beside what runs: a cancellation. A connection that is gone has nothing to cancel."""
        with self._sending, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.sendall(data)

    def close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _carry_out(self, effect: Effect) -> bytes:
        match effect:
            case Connect(host, within_s):
                self.close()
                self._socket = socket.create_connection((host.host, host.port), within_s)
                _set_options(self._socket)
            case Send(data, within_s):
                with self._sending:
                    sock = self._connected()
                    sock.settimeout(within_s)
                    sock.sendall(data)
            case Receive(within_s):
                return self._receive(within_s)
            case Close():
                self.close()
            case Pause(seconds):
                time.sleep(seconds)  # noqa: TID251 - the edge: this is where the core's time passes.
        return b""

    def _receive(self, within_s: float) -> bytes:
        sock = self._connected()
        if within_s > 0:
            sock.settimeout(within_s)
            return sock.recv(READ_BYTES)
        sock.settimeout(0)
        try:
            return sock.recv(READ_BYTES)
        except BlockingIOError as error:
            raise TimeoutError("nothing has arrived") from error

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("not connected")
        return self._socket


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere the calls' own time limits end it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_PEER_MS)
