"""The launcher: starts what must outlive the agent, in a service unit of its own.

`python -S -P -m primacy.runtime.launcher SOCKET`. Guards (and with them the databases) and the
router are its children, so that the agent's unit can be stopped, upgraded and started without them.
One thread, one poll(), no event loop, standard library only; it knows nothing of leases.

    serving --launch--> a child more
       |    --a child exits--> reaped
       +--SIGTERM--> SIGTERM to each child --all exited--> end

Promises  Only its own user (or root) is served. What it started lives on when it is killed; the
          next launcher knows them by `launched.json` and ends them when it is told to end.
Does not  Start anything by itself, or again.
"""

import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

from primacy.errors import PrimacyError
from primacy.runtime.launching import Launch, peer_uid, received, spawn
from primacy.runtime.processes import ProcessName, Watched, boot_id, watch

REQUEST_WITHIN_S = 1.0
"""A connection that has said nothing by then is dropped: nobody can hold the launcher up."""

LAUNCHED_NAME = "launched.json"


class Launcher:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._children: dict[int, Watched] = {}
        self._is_ending = False
        self._wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        self._listener = _listen(path)
        for name in self._remembered():
            child = watch(name.pid, started=name.started)
            if child is not None:
                self._children[name.pid] = child

    def run(self) -> None:
        """Until SIGTERM, and then until every child has exited."""
        _tell(f"ready at {self._path}, {len(self._children)} process(es) of an earlier launcher")
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        poll.register(self._listener.fileno(), select.POLLIN)
        known: set[int] = set()
        while not (self._is_ending and not self._children):
            for child in self._children.values():
                if child.fileno() not in known:
                    known.add(child.fileno())
                    poll.register(child.fileno(), select.POLLIN)
            for fd, _ in poll.poll():
                if fd == self._wakeup:
                    _drain(fd)
                elif fd == self._listener.fileno():
                    self._serve()
            for child in [each for each in self._children.values() if each.has_exited()]:
                if child.fileno() in known:  # Else it exited before it was ever waited for.
                    known.remove(child.fileno())
                    poll.unregister(child.fileno())
                self._bury(child)
            if self._is_ending:
                self._end_children()
        _tell("ended, and everything that was started has")

    # ---- one request

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(REQUEST_WITHIN_S)
            if peer_uid(connection) not in (0, os.geteuid()):
                _tell(f"refused a request of uid {peer_uid(connection)}")
                return
            try:
                wanted, files = received(connection)
            except OSError as error:
                _tell(f"a request that could not be read: {error}")
                return
            try:
                answer = self._launched(wanted)
            finally:
                for fd in files:
                    os.close(fd)
            try:
                connection.send(json.dumps(answer).encode())
            except OSError as error:
                _tell(f"an answer that nobody waits for: {error}")

    def _launched(self, wanted: Launch | None) -> dict[str, int | str]:
        if wanted is None or not wanted.argv:
            return {"reason": "not a request of this version"}
        if self._is_ending:
            return {"reason": "the launcher is ending"}
        try:
            pid = spawn(wanted)
        except (PrimacyError, ValueError) as error:
            return {"reason": str(error)}
        child = watch(pid)
        if child is None:
            return {"reason": "it exited at once"}
        self._children[pid] = child
        self._remember()
        _tell(f"started {pid}: {' '.join(wanted.argv)}")
        return {"pid": pid}

    # ---- children

    def _bury(self, child: Watched) -> None:
        try:
            _, status = os.waitpid(child.name.pid, os.WNOHANG)
            _tell(f"{child.name.pid} has exited: {os.waitstatus_to_exitcode(status)}")
        except ChildProcessError:
            _tell(f"{child.name.pid} has exited; an earlier launcher had started it")
        del self._children[child.name.pid]
        child.close()
        self._remember()

    def _end_children(self) -> None:
        for child in self._children.values():
            child.kill(signal.SIGTERM)

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        self._is_ending = True

    # ---- for the next launcher

    def _remember(self) -> None:
        """A full disk must not stop the launcher: the next one then knows fewer."""
        names = [list(child.name) for child in self._children.values()]
        beside = self._path.parent / f"{LAUNCHED_NAME}.new"
        try:
            beside.write_text(json.dumps({"boot": boot_id().hex(), "launched": names}) + "\n")
            beside.replace(self._path.parent / LAUNCHED_NAME)
        except OSError as error:
            _tell(f"{LAUNCHED_NAME} cannot be written: {error}")

    def _remembered(self) -> list[ProcessName]:
        try:
            known = json.loads((self._path.parent / LAUNCHED_NAME).read_text())
            if known["boot"] != boot_id().hex():
                return []
            return [ProcessName(int(pid), int(started)) for pid, started in known["launched"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            _tell(f"{LAUNCHED_NAME} cannot be read: {error}")
            return []


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
        os.umask(before)
    listener.listen(16)
    return listener


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            continue
    except BlockingIOError:
        return


def _tell(line: str) -> None:
    sys.stderr.write(f"launcher {line}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        _tell("is given one argument: the path of its socket")
        return 2
    Launcher(Path(arguments[0])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
