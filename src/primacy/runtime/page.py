"""The deadline page: may this host's database answer its clients at this moment?

64 bytes of shared memory, written by the guard and read by agent and router. The bytes are
described in docs/formats/page.md.

    closed(e) --arm(f > e)--> armed(f) --open(f)--> open(f) --close(f)--> closed(f)

Promises: an epoch is opened at most once, by whichever guard; a reader lets nothing pass at or
after the deadline, in another boot, under another epoch, or on a torn page.
Assumes: the file is on tmpfs, and readers and writer share one time namespace.
Does not: tell what happens to bytes that passed the check before the process was frozen.

Standard library only: the guard imports this module.
"""

import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Self

from primacy.errors import Conflict, Corrupt, Unavailable
from primacy.runtime.processes import ProcessName, boot_id

PAGE_BYTES = 64
MAGIC = b"PRMYPG01"
READS_MAX = 8
"""A write takes well under a microsecond; a page that is torn eight times in a row stays torn."""

_FIELDS = struct.Struct("<8s16sIB3xQQqI")
_CHECKSUM = struct.Struct("<I")


class PageState(Enum):
    """What may pass."""

    CLOSED = 1
    """Nothing, and for this epoch never again."""
    ARMED = 2
    """Nothing yet; the guard kills at the deadline."""
    OPEN = 3
    """Everything until the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One reading. `epoch` is the number of a primary.model.Epoch."""

    boot: bytes = bytes(16)
    guard: ProcessName = ProcessName(0, 0)  # noqa: RUF009 -- a frozen value, shared on purpose
    state: PageState = PageState.CLOSED
    epoch: int = 0
    deadline_ns: int = 0
    """On CLOCK_BOOTTIME; 0: none."""
    sequence: int = 0

    @property
    def highest_closed(self) -> int:
        """Neither this epoch nor one below it will ever be opened again."""
        return self.epoch if self.state is PageState.CLOSED else self.epoch - 1

    def encode(self) -> bytes:
        body = _FIELDS.pack(
            MAGIC,
            self.boot,
            self.guard.pid,
            self.state.value,
            self.guard.started,
            self.epoch,
            self.deadline_ns,
            self.sequence,
        )
        return body + _CHECKSUM.pack(zlib.crc32(body))


NO_PAGE = Page()
"""What a torn or empty page counts as: closed."""


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: counts suspension too."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def decode(raw: bytes) -> Page | None:
    """None: torn, or not a page."""
    if len(raw) != PAGE_BYTES or _CHECKSUM.unpack_from(raw, _FIELDS.size)[0] != zlib.crc32(
        raw[: _FIELDS.size]
    ):
        return None
    magic, boot, pid, state, started, epoch, deadline_ns, sequence = _FIELDS.unpack_from(raw)
    if magic != MAGIC or state not in (1, 2, 3):
        return None
    return Page(
        boot=boot,
        guard=ProcessName(pid, started),
        state=PageState(state),
        epoch=epoch,
        deadline_ns=deadline_ns,
        sequence=sequence,
    )


class PageReader:
    """For agent and router. One mapping, kept; `permits` costs about a microsecond."""

    def __init__(self, path: Path, *, now_ns: Callable[[], int] = boottime_ns) -> None:
        """`Unavailable` where no guard has made the page yet."""
        self._now_ns = now_ns
        self._boot = boot_id()
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), PAGE_BYTES, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"the deadline page {path} cannot be read: {error}",
                hint="It appears when the guard of this host's database starts.",
            ) from error
        self._raw = b""
        self._open_epoch = -1
        self._deadline_ns = 0

    def close(self) -> None:
        self._map.close()

    def read(self) -> Page:
        """The page as it is. Torn for too long: `NO_PAGE`."""
        for _ in range(READS_MAX):
            page = decode(self._map[:PAGE_BYTES])
            if page is not None:
                return page
            os.sched_yield()
        return NO_PAGE

    def permits(self, epoch: int) -> bool:
        """May an answer that was given under `epoch` pass now? The page is read before the
        clock, so that a process which is frozen in between refuses."""
        raw = self._map[:PAGE_BYTES]
        if raw != self._raw:
            self._remember(raw)
        return epoch == self._open_epoch and self._now_ns() < self._deadline_ns

    def left_ns(self, epoch: int) -> int:
        """How long `permits(epoch)` can still be true, as the page stands. 0: it is not."""
        return max(0, self._deadline_ns - self._now_ns()) if self.permits(epoch) else 0

    def _remember(self, raw: bytes) -> None:
        page = decode(raw)
        if page is None:
            page, raw = self.read(), b""
        is_open = page.state is PageState.OPEN and page.boot == self._boot
        self._open_epoch = page.epoch if is_open else -1
        self._deadline_ns = page.deadline_ns
        self._raw = raw


class PageWriter:
    """For the guard: the only writer, by a lock on the file. Starts closed.

    Refusals are `Conflict`s that say why; nothing has changed then.
    """

    def __init__(self, path: Path, *, guard: ProcessName) -> None:
        """`Conflict` where another process holds the page."""
        self._fd, self._map = _open_locked(path)
        self.page = replace(_last(self._map), boot=boot_id(), guard=guard)
        self._write(state=PageState.CLOSED, deadline_ns=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the lock go. The page stays as it is."""
        self._map.close()
        os.close(self._fd)

    def arm(self, epoch: int, deadline_ns: int, *, now_ns: int) -> None:
        """closed(e) -> armed(epoch), for an epoch that is above e. Asked again for the same
        epoch, it is an extension."""
        if self.page.state is not PageState.CLOSED and epoch == self.page.epoch:
            self.extend(epoch, deadline_ns)
            return
        if self.page.state is not PageState.CLOSED:
            raise _refused(
                f"epoch {self.page.epoch} is {self._state}: epoch {epoch} cannot be armed",
                "Close the epoch that stands first.",
            )
        if epoch <= self.page.highest_closed:
            raise _refused(
                f"epoch {epoch} was closed, and closed is final",
                f"Arm an epoch above {self.page.highest_closed}.",
            )
        if deadline_ns <= now_ns:
            raise _refused(f"the deadline for epoch {epoch} has passed", "Renew the lease first.")
        self._write(state=PageState.ARMED, epoch=epoch, deadline_ns=deadline_ns)

    def extend(self, epoch: int, deadline_ns: int) -> None:
        """Raise the deadline. A lower one changes nothing."""
        self._require(epoch)
        if deadline_ns > self.page.deadline_ns:
            self._write(deadline_ns=deadline_ns)

    def open(self, epoch: int, *, now_ns: int) -> None:
        """armed(epoch) -> open(epoch). Open already: nothing changes."""
        self._require(epoch)
        if now_ns >= self.page.deadline_ns:
            raise _refused(f"the deadline of epoch {epoch} has passed", "The database must go.")
        if self.page.state is PageState.ARMED:
            self._write(state=PageState.OPEN)

    def close(self, epoch: int, *, keep_deadline: bool = False) -> None:
        """-> closed(epoch). Closed already: only the deadline is lifted, where it was kept."""
        if epoch > self.page.epoch:
            raise _refused(
                f"epoch {epoch} was never armed: the page is at epoch {self.page.epoch}",
                "Look at the status again.",
            )
        if epoch == self.page.epoch:
            kept_ns = self.page.deadline_ns if keep_deadline else 0
            self._write(state=PageState.CLOSED, deadline_ns=kept_ns)

    def close_for_good(self) -> None:
        """The database must go or has gone: closed, whatever the epoch."""
        self._write(state=PageState.CLOSED, deadline_ns=0)

    @property
    def _state(self) -> str:
        return self.page.state.name.lower()

    def _require(self, epoch: int) -> None:
        if epoch <= self.page.highest_closed:
            raise _refused(f"epoch {epoch} was closed, and closed is final", "Demote.")
        if epoch != self.page.epoch or self.page.state is PageState.CLOSED:
            raise _refused(
                f"epoch {epoch} is not armed: the page is {self._state} at {self.page.epoch}",
                "Arm it first.",
            )

    def _write(
        self,
        *,
        state: PageState | None = None,
        epoch: int | None = None,
        deadline_ns: int | None = None,
    ) -> None:
        self.page = replace(
            self.page,
            state=self.page.state if state is None else state,
            epoch=self.page.epoch if epoch is None else epoch,
            deadline_ns=self.page.deadline_ns if deadline_ns is None else deadline_ns,
            sequence=(self.page.sequence + 1) & 0xFFFFFFFF,
        )
        self._map[:PAGE_BYTES] = self.page.encode()


def close_page(path: Path) -> Page:
    """Close the page of a guard that has exited, and return what stands then.

    Assumes that the caller knows the guard to be dead; the lock proves it (`Conflict`
    otherwise). A page that does not exist is made, closed.
    """
    fd, mapped = _open_locked(path)
    try:
        last = _last(mapped)
        page = replace(
            last,
            state=PageState.CLOSED,
            deadline_ns=0,
            sequence=(last.sequence + 1) & 0xFFFFFFFF,
        )
        mapped[:PAGE_BYTES] = page.encode()
        return page
    finally:
        mapped.close()
        os.close(fd)


def _open_locked(path: Path) -> tuple[int, mmap.mmap]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(fd).st_size
        if size not in (0, PAGE_BYTES):
            raise Corrupt(
                f"{path} has {size} bytes, and a deadline page has {PAGE_BYTES}",
                hint="Name another page_path, or remove the file.",
            )
        os.ftruncate(fd, PAGE_BYTES)
        return fd, mmap.mmap(fd, PAGE_BYTES)
    except BlockingIOError as error:
        os.close(fd)
        raise Conflict(
            f"another guard holds the deadline page {path}",
            hint="Attach to that guard, or wait until it has exited.",
        ) from error
    except BaseException:
        os.close(fd)
        raise


def _last(mapped: mmap.mmap) -> Page:
    """What the last writer left. Of a torn page the epoch alone is true (docs/formats/page.md)."""
    raw = mapped[:PAGE_BYTES]
    page = decode(raw)
    if page is not None:
        return page
    magic, _boot, _pid, _state, _started, epoch, _deadline_ns, sequence = _FIELDS.unpack_from(raw)
    return Page(epoch=epoch, sequence=sequence) if magic == MAGIC else NO_PAGE


def _refused(what: str, hint: str) -> Conflict:
    return Conflict(what, hint=hint)
