"""The launcher as a process: what it starts is its own, outlives the one who asked, and ends with
its unit."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import primacy
from primacy.errors import Conflict, Unavailable
from primacy.runtime.launching import Launch, connected, launch
from primacy.runtime.processes import children, process_start_time, watch

pytestmark = pytest.mark.integration

SOURCES = Path(primacy.__file__).parents[1]
SLEEP = ["/bin/sleep", "600"]
WITHIN_S = 20.0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    found = watch(pid)
    if found is None:
        return True
    try:
        return found.has_exited()
    finally:
        found.close()


@contextmanager
def launcher(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-P", "-m", "primacy.runtime.launcher", str(path)],
        env={"PYTHONPATH": str(SOURCES)},
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"launcher ready at ")
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=WITHIN_S)


def sleeping(path: Path) -> int:
    return launch(Launch(argv=SLEEP, environment={}), launcher=path)


def test_what_it_starts_is_its_child_in_a_session_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "launcher.sock"
    with launcher(path) as process:
        pid = sleeping(path)
        assert [each.pid for each in children(process.pid)] == [pid]
        assert os.getsid(pid) == pid
        assert path.stat().st_mode & 0o777 == 0o600
    assert is_gone(pid)
    assert process.returncode == 0


def test_the_environment_is_what_was_asked_for_and_the_output_goes_where_it_should(
    tmp_path: Path,
) -> None:
    path = tmp_path / "launcher.sock"
    reader, writer = os.pipe()
    with launcher(path):
        what = Launch(argv=["/usr/bin/env"], environment={"ONLY": "this"}, stdout=writer)
        launch(what, launcher=path)
        os.close(writer)
        with os.fdopen(reader, "rb") as output:
            assert output.read() == b"ONLY=this\n"  # Ends: nobody else holds the pipe.


def test_killed_it_takes_nothing_with_it_and_the_next_one_knows_what_runs(tmp_path: Path) -> None:
    path = tmp_path / "launcher.sock"
    with launcher(path) as first:
        pid = sleeping(path)
        first.kill()
        first.wait(WITHIN_S)
        assert not is_gone(pid)
        with launcher(path) as second:
            other = sleeping(path)
            assert not is_gone(pid)
        assert second.returncode == 0
        assert is_gone(pid)
        assert is_gone(other)


def test_a_child_that_exits_is_reaped_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "launcher.sock"
    with launcher(path):
        pid = sleeping(path)
        os.kill(pid, signal.SIGKILL)
        until(lambda: process_start_time(pid) is None)
        until(lambda: json.loads((tmp_path / "launched.json").read_text())["launched"] == [])


def test_a_child_that_exits_at_once_does_not_end_it(tmp_path: Path) -> None:
    """It was once dead before the launcher waited for it, which then waited for nobody any more."""
    path = tmp_path / "launcher.sock"
    with launcher(path):
        for _ in range(30):
            with suppress(Conflict):  # "It exited at once" is an answer, too.
                launch(Launch(argv=["/bin/true"], environment={}), launcher=path)
        assert not is_gone(sleeping(path))


def test_it_says_what_it_cannot_start(tmp_path: Path) -> None:
    path = tmp_path / "launcher.sock"
    with launcher(path):
        with pytest.raises(Conflict, match="/no/such/program cannot be started"):
            launch(Launch(argv=["/no/such/program"], environment={}), launcher=path)
        assert not is_gone(sleeping(path))


@pytest.mark.parametrize(
    "message",
    [b"not json", b"{}", b"[]", b'{"argv": [], "environment": {}}', b'{"argv": 3}'],
)
def test_nonsense_is_answered_and_harms_nobody(tmp_path: Path, message: bytes) -> None:
    path = tmp_path / "launcher.sock"
    with launcher(path):
        with connected(path) as sock:
            sock.send(message)
            assert b"not a request of this version" in sock.recv(4096)
        assert not is_gone(sleeping(path))


def test_one_who_says_nothing_holds_nobody_up_for_long(tmp_path: Path) -> None:
    path = tmp_path / "launcher.sock"
    with launcher(path), connected(path):
        assert not is_gone(sleeping(path))


def test_where_none_listens_the_caller_hears_which_unit_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"guard\.service"):
        sleeping(tmp_path / "launcher.sock")
    abandoned = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    abandoned.bind(str(tmp_path / "launcher.sock"))
    with abandoned, pytest.raises(Unavailable):
        sleeping(tmp_path / "launcher.sock")


def test_without_a_launcher_the_child_is_the_caller_s_own() -> None:
    pid = launch(Launch(argv=SLEEP, environment={}), launcher=None)
    assert pid in [each.pid for each in children(os.getpid())]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
