"""One connection of the pull protocol: frames in, frames out, one timer. For both ends.

Promises  Payloads come whole and in order; after `end` or `abort` none comes any more.
Does not  Know what a payload means.
"""

import asyncio
from typing import Protocol, cast

from primacy.errors import Corrupt
from primacy.replication.pull.messages import STRANGER_BYTES_MAX
from primacy.runtime.tcp import set_options
from primacy.wire import FrameDecoder


class LinkOwner(Protocol):
    """Called in the event loop. It must return soon and must not raise."""

    def opened(self, link: "Link") -> None: ...

    def came(self, link: "Link", payload: bytes) -> None: ...

    def woke(self, link: "Link") -> None:
        """The time that `wake_at` named has come."""
        ...

    def closed(self, link: "Link", reason: str) -> None:
        """Once, by the other end or by the network; not after `end` or `abort`."""
        ...


class Link(asyncio.Protocol):
    """Takes messages of strangers only, until `allow` says how large a payload may be."""

    def __init__(self, owner: LinkOwner) -> None:
        self._owner = owner
        self.received_bytes = 0
        self._decoder = FrameDecoder(size_max=STRANGER_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    # ---- asyncio's side ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one only in kind.
        set_options(self._transport)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self.received_bytes += len(data)
        try:
            payloads = self._decoder.feed(data)
        except Corrupt as error:
            self._broke(error.what)
            return
        for payload in payloads:
            if self._is_over:
                return
            self._owner.came(self, payload)

    def connection_lost(self, error: Exception | None) -> None:
        self._broke("the other end closed the connection" if error is None else str(error))

    # ---- the owner's side --------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Host and port of the other end, for people."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return f"{name[0]}:{name[1]}" if name else "unknown"

    def allow(self, size_max: int) -> None:
        self._decoder.allow(size_max)

    def send(self, frame: bytes) -> None:
        """Never waits. The owner bounds what it sends."""
        if self._transport is not None and not self._is_over:
            self._transport.write(frame)

    def pause(self) -> None:
        """Read nothing for a while: the other end soon cannot send any more."""
        if self._transport is not None and not self._is_over:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._is_over:
            self._transport.resume_reading()

    def wake_in(self, delay_s: float) -> None:
        """Replaces what was asked for before."""
        self._stop_timer()
        if not self._is_over:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, delay_s), self._owner.woke, self)

    def end(self) -> None:
        """What was sent still goes out; nothing comes in."""
        if self._finish() and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._finish()
        if self._transport is not None:
            self._transport.abort()

    def _broke(self, reason: str) -> None:
        if self._finish():
            if self._transport is not None:
                self._transport.abort()
            self._owner.closed(self, reason)

    def _finish(self) -> bool:
        self._stop_timer()
        was_over, self._is_over = self._is_over, True
        return not was_over

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
