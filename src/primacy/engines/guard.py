"""The guard: the parent of one database process, which kills it at the deadline.

`python -S -P -m primacy.engines.guard SPEC.json`. The protocol is docs/protocols/guard.md, the
page docs/formats/page.md. One thread, one poll(), no event loop, standard library only.

    start --fork--> guarding --deadline | kill | SIGTERM--> killing --all exited--> end
                        +--------- the database exits ---------^

Promises: when the deadline passes the page is closed and the database gets SIGKILL; if the guard
itself dies, the kernel kills the database; it never starts a database a second time; it reads
its whole inbox before it judges the deadline.
Assumes: it shares the time and pid namespaces of its readers; a guard that is root and drops the
database's uid keeps CAP_KILL, without which the kernel's signal at its death is not delivered.
Does not: decide anything about leases; wait for a disk before it has closed the page and killed.
"""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from primacy.engines.guardchild import Forked, GuardSpec, StartRefused, fork_database, read_spec
from primacy.errors import Conflict, PrimacyError
from primacy.runtime.page import PageWriter, boottime_ns
from primacy.runtime.processes import boot_id, children, own_name

MESSAGE_BYTES_MAX = 4096
CONNECTIONS_MAX = 8
READS_PER_ROUND_MAX = 64
"""The inbox is read before the deadline is judged, but nobody can keep the guard reading."""
REAP_EVERY_MS = 5
"""While SIGKILLed orphans of the database die; they have no pidfd here."""

Answer = dict[str, Any]  # Any: JSON, one flat object.

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36
_MCL_CURRENT_AND_FUTURE = 3
_TFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_TFD_TIMER_ABSTIME = 1
_CLOCK_BOOTTIME = 7


class BoottimeTimer:
    """An alarm on CLOCK_BOOTTIME. poll()'s own timeout stands still while the machine sleeps."""

    def __init__(self) -> None:
        self.fd = int(_LIBC.timerfd_create(_CLOCK_BOOTTIME, _TFD_FLAGS))
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create on CLOCK_BOOTTIME")

    def set(self, at_ns: int) -> None:
        """Readable from then on. 0: never."""
        when = struct.pack("@4l", 0, 0, at_ns // 1_000_000_000, at_ns % 1_000_000_000)
        if _LIBC.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, when, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")


class Connection:
    """One peer on the socket. Only the one that said hello last may command."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""
        self.is_open = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def lines(self) -> Iterator[bytes]:
        """Whatever has arrived, line by line; stops when the connection is closed meanwhile."""
        for _ in range(READS_PER_ROUND_MAX):
            try:
                chunk = self._socket.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""  # Reset by the peer: the same as its end.
            if not chunk:
                self.close()
                return
            *whole, self._buffer = (self._buffer + chunk).split(b"\n")
            for line in whole:
                if not self.is_open:
                    return
                yield line
            if len(self._buffer) > MESSAGE_BYTES_MAX:
                self.close()
                return

    def answer(self, answer: Answer) -> None:
        """At once or never: a peer that does not read its answers is dropped."""
        try:
            self._socket.send(json.dumps(answer).encode() + b"\n")
        except OSError:
            self.close()

    def close(self) -> None:
        self.is_open = False
        self._socket.close()


class Guard:
    """Holds one number, the deadline, which is the page's."""

    def __init__(self, spec: GuardSpec) -> None:
        self._spec = spec
        self._name = own_name()
        self._agent: Connection | None = None
        self._agent_pid = 0
        self._connections: list[Connection] = []
        self._why_killed = ""
        self._notes: list[str] = []
        self._wakeup, wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_writer)
        self._is_terminated = False
        signal.signal(signal.SIGTERM, self._on_sigterm)
        for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        self._page = PageWriter(spec.page_path, guard=self._name)
        self._listener = _listen(spec.socket_path)
        self._timer = BoottimeTimer()
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._database: Forked = fork_database(spec)
        self._harden()
        self._write_status("running", exit_code=None)

    # -- the loop

    def run(self) -> int:
        """Until the database has exited, by itself or killed. Returns its wait status."""
        poll = select.poll()
        for fd in (self._wakeup, self._timer.fd, self._listener.fileno(), self._database.pidfd):
            poll.register(fd, select.POLLIN)
        watched: dict[int, Connection] = {}
        while True:
            poll.poll()
            self._hear_signals()
            self._read_inbox()
            self._judge()
            if self._has_exited():
                return self._bury()
            now = {connection.fileno(): connection for connection in self._connections}
            for fd in watched.keys() - now.keys():
                poll.unregister(fd)
            for fd in now:
                poll.register(fd, select.POLLIN)
            watched = now

    def _hear_signals(self) -> None:
        """The handlers have run; this only empties the pipe that woke the loop."""
        try:
            os.read(self._wakeup, 64)
        except BlockingIOError:
            return

    def _read_inbox(self) -> None:
        """The newest connection first: its hello drops what earlier agents still have pending."""
        self._accept()
        for connection in reversed(self._connections):
            for line in connection.lines():
                self._handle(connection, line)
        self._connections = [c for c in self._connections if c.is_open]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)  # noqa: FBT003 -- the standard library's signature
            self._connections.append(Connection(sock))
            if len(self._connections) > CONNECTIONS_MAX:
                next(c for c in self._connections if c is not self._agent).close()
                self._connections = [c for c in self._connections if c.is_open]

    def _judge(self) -> None:
        deadline_ns = self._page.page.deadline_ns
        if deadline_ns and boottime_ns() >= deadline_ns:
            self._kill(f"the deadline of epoch {self._page.page.epoch} passed")
        elif self._is_terminated:
            self._kill("SIGTERM")
        else:
            self._timer.set(deadline_ns)

    def _kill(self, why: str) -> None:
        """The page first, then the process: both at once, as far as anybody can see."""
        self._page.close_for_good()
        self._timer.set(0)
        self._why_killed = self._why_killed or why
        self._database.kill()

    def _has_exited(self) -> bool:
        poll = select.poll()
        poll.register(self._database.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _bury(self) -> int:
        """The database's process has exited. See its orphans off, then say so."""
        self._page.close_for_good()
        _, status = os.waitpid(self._database.name.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        pause = select.poll()
        while _reap_orphans(self._name.pid):
            pause.poll(REAP_EVERY_MS)
        self._write_status("exited", exit_code=code)
        return code

    # -- messages

    def _handle(self, connection: Connection, line: bytes) -> None:
        answer: Answer = {"id": 0, "ok": False}
        try:
            message = json.loads(line)
            answer["id"] = message.get("id", 0)
            self._obey(connection, message)
            answer["ok"] = True
        except Conflict as refusal:
            answer["reason"] = str(refusal)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            answer["reason"] = f"not a message: {type(error).__name__} {error}"
        if connection.is_open:
            connection.answer(answer | self.standing())

    def _obey(self, connection: Connection, message: dict[str, Any]) -> None:  # Any: JSON.
        operation = str(message["op"])
        if operation == "hello":
            self._welcome(connection, int(message["pid"]))
            return
        if operation == "status":
            return
        if connection is not self._agent:
            raise Conflict("this connection has not said hello", hint="Say hello first.")
        if operation == "kill":
            self._kill(f"agent {self._agent_pid} said kill")
            return
        self._page_operation(operation, message)

    def _page_operation(self, operation: str, message: dict[str, Any]) -> None:  # Any: JSON.
        epoch = int(message["epoch"])
        if self._why_killed:
            raise Conflict(f"the database is being killed: {self._why_killed}", hint="Wait.")
        match operation:
            case "arm":
                self._page.arm(epoch, int(message["deadline_ns"]), now_ns=boottime_ns())
            case "extend":
                self._page.extend(epoch, int(message["deadline_ns"]))
            case "open":
                self._page.open(epoch, now_ns=boottime_ns())
            case "close":
                self._page.close(epoch, keep_deadline=bool(message.get("keep_deadline")))
            case _:
                raise Conflict(f"unknown operation {operation!r}", hint="See the protocol.")

    def _welcome(self, connection: Connection, agent_pid: int) -> None:
        for other in self._connections:
            if other is not connection:
                other.close()
        self._agent = connection
        self._agent_pid = agent_pid

    def standing(self) -> Answer:
        page = self._page.page
        return {
            "state": page.state.name.lower(),
            "epoch": page.epoch,
            "deadline_ns": page.deadline_ns,
            "guard": self._name,
            "database": self._database.name,
            "agent_pid": self._agent_pid,
            "notes": self._notes,
        }

    # -- around it

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        self._is_terminated = True

    def _harden(self) -> None:
        """What is not permitted is noted, and shown by `status`."""
        if _LIBC.mlockall(_MCL_CURRENT_AND_FUTURE) != 0:
            self._notes.append(f"memory is not locked: {os.strerror(ctypes.get_errno())}")
        try:
            Path("/proc/self/oom_score_adj").write_text("-1000", encoding="ascii")
        except OSError as error:
            self._notes.append(f"oom_score_adj is not lowered: {error.strerror}")

    def _write_status(self, state: str, *, exit_code: int | None) -> None:
        """For people, and for an agent that comes later. A full disk must not stop the guard."""
        status = self.standing() | {
            "process": state,
            "exit_code": exit_code,
            "why_killed": self._why_killed,
            "boot": boot_id().hex(),
            "page_path": str(self._spec.page_path),
        }
        beside = self._spec.status_path.with_suffix(".new")
        try:
            beside.write_text(json.dumps(status) + "\n", encoding="utf-8")
            beside.replace(self._spec.status_path)
        except OSError as error:
            sys.stderr.write(f"guard: {self._spec.status_path} was not written: {error}\n")


def _reap_orphans(guard_pid: int) -> bool:
    """Kill what the database left behind (this process is its subreaper). True: some remain."""
    for orphan in children(guard_pid):
        os.kill(orphan.pid, signal.SIGKILL)  # An unreaped child keeps its number: never another's.
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue
    except ChildProcessError:
        return False
    return True


def _listen(path: Path) -> socket.socket:
    """0600 from its first moment. The directory is opened because a socket's path has a limit."""
    path.unlink(missing_ok=True)  # The page's lock says that no living guard listens there.
    directory_fd = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    mask = os.umask(0o177)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(f"/proc/self/fd/{directory_fd}/{path.name}")
        listener.listen(CONNECTIONS_MAX)
        return listener
    finally:
        os.umask(mask)
        os.close(directory_fd)


def _report(line: Answer) -> None:
    """One line to whoever started the guard; then standard output is nobody's."""
    try:
        os.write(1, json.dumps(line).encode() + b"\n")
    except OSError as error:
        sys.stderr.write(f"guard: nobody heard that it started: {error}\n")
    null_fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_fd, 1)
    os.close(null_fd)


def main(arguments: list[str], leave: Callable[[int], NoReturn] = os._exit) -> NoReturn:
    """Exit code 0: the database has exited and the page is closed. 1: it never started."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        guard = Guard(read_spec(Path(arguments[0])))
    except StartRefused as error:
        _report({"ok": False, "kind": "rejected", "reason": str(error)})
        leave(1)
    except (PrimacyError, OSError) as error:
        kind = "conflict" if isinstance(error, Conflict) else "unavailable"
        _report({"ok": False, "kind": kind, "reason": str(error)})
        leave(1)
    _report({"ok": True} | guard.standing())
    guard.run()
    leave(0)


if __name__ == "__main__":
    main(sys.argv[1:])
