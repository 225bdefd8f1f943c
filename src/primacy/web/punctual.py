"""uvicorn's HTTP/1.1 protocol, which closes connections that are too many or too slow.

uvicorn bounds how long a connection may be idle between two requests, and not how slowly a request
may arrive or an answer may be read: a few clients that send a byte a minute, or read nothing, would
otherwise take all connections. It also
answers those that are too many with 503, each of which costs as much as a request; here they are
closed at once.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 64
"""At once. Whoever comes on top is turned away unheard."""

HEAD_WITHIN_S = 5.0
"""From the connection's beginning, or from the first byte of a later request."""


READ_WITHIN_S = 5.0
"""For a client to take what stands ready for it, once the kernel's buffers are full."""


class PunctualProtocol(H11Protocol):
    _late: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(  # type: ignore[override]  # uvicorn narrows the transport, as it may.
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.close()
            return
        # Whatever the kernel does not take at once starts the clock: also for a connection that is
        # being closed, which would else stand for as long as its client likes.
        transport.set_write_buffer_limits(high=0)
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._disarm()
        elif self._late is None:
            self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(READ_WITHIN_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._stuck is not None:
            self._stuck.cancel()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._late = self.loop.call_later(HEAD_WITHIN_S, self._close)

    def _disarm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._late = None
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            self.transport.close()
