"""The guard alone is killed, as root and as a plain user: 200 ms later there is no database."""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import primacy
from primacy.engines.guardchild import GuardSpec
from primacy.engines.guarding import guard_spec
from primacy.runtime.page import PageState, close_page
from primacy.runtime.processes import ProcessName, Watched, watch

pytestmark = pytest.mark.integration

PLAIN_UID = 65534
GUARD_AS_PLAIN_USER = f"""
import ctypes, os, sys
import encodings.ascii  # Loaded before the drop: the interpreter may lie where only root reads.
from primacy.engines.guard import main
os.setgroups([])
os.setresgid({PLAIN_UID}, {PLAIN_UID}, {PLAIN_UID})
os.setresuid({PLAIN_UID}, {PLAIN_UID}, {PLAIN_UID})
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as after a login and an exec.
main(sys.argv[1:])
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """On tmpfs, and the plain user's where there is one to drop to."""
    with tempfile.TemporaryDirectory(prefix="primacy-test-", dir="/dev/shm") as name:
        directory = Path(name)
        if os.geteuid() == 0:
            os.chown(directory, PLAIN_UID, PLAIN_UID)
        yield directory


def start(spec: GuardSpec, directory: Path, *, as_plain_user: bool) -> tuple[Watched, Watched]:
    """The guard and its database, watched."""
    spec_path = directory / "spec.json"
    spec_path.write_bytes(spec.encode())
    spec_path.chmod(0o644)
    program = ["-c", GUARD_AS_PLAIN_USER] if as_plain_user else ["-m", "primacy.engines.guard"]
    process = subprocess.Popen(
        [sys.executable, "-S", *program, str(spec_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(primacy.__file__).parent.parent)},
        start_new_session=True,
    )
    assert process.stdout is not None
    answer = json.loads(process.stdout.readline())
    process.stdout.close()
    process.returncode = 0  # From here on the test itself watches it, and reaps it.
    assert answer["ok"], answer
    guard = watch(answer["guard"][0], started=answer["guard"][1])
    database = watch(answer["database"][0], started=answer["database"][1])
    assert guard is not None
    assert database is not None
    return guard, database


def uid_of(name: ProcessName) -> int:
    return Path(f"/proc/{name.pid}").stat().st_uid


def kill_guard_and_look(guard: Watched, database: Watched) -> float:
    """SIGKILL the guard; the database must be gone 200 ms later. Returns when it was, in ms."""
    killed_at = time.monotonic()
    guard.kill(signal.SIGKILL)
    poll = select.poll()
    poll.register(database.fileno(), select.POLLIN)
    poll.poll(200)
    took_ms = (time.monotonic() - killed_at) * 1000
    is_gone = database.has_exited()
    database.kill()  # Nothing stays behind, whatever the test finds.
    os.waitpid(guard.name.pid, 0)
    guard.close()
    database.close()
    assert is_gone
    return took_ms


def spec_of(directory: Path, *, user: str | None) -> GuardSpec:
    return guard_spec(
        ("/bin/sh", "-c", "trap '' TERM HUP; exec sleep 100000"),
        state_dir=directory,
        page_path=directory / "page",
        log_path=directory / "database.log",
        user=user,
        environment={"PATH": "/usr/bin:/bin"},
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("user", ["nobody", None], ids=["drops-its-uid", "stays-root"])
def test_when_a_root_guard_is_killed_its_database_is_gone(
    open_directory: Path, user: str | None, record_testsuite_property: Callable[[str, object], None]
) -> None:
    guard, database = start(spec_of(open_directory, user=user), open_directory, as_plain_user=False)
    assert uid_of(guard.name) == 0
    assert uid_of(database.name) == (PLAIN_UID if user else 0)
    took_ms = kill_guard_and_look(guard, database)
    record_testsuite_property("database_gone_after_ms", took_ms)
    assert close_page(open_directory / "page").state is PageState.CLOSED


def test_when_a_plain_users_guard_is_killed_its_database_is_gone(
    open_directory: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    is_root = os.geteuid() == 0
    guard, database = start(
        spec_of(open_directory, user=None), open_directory, as_plain_user=is_root
    )
    assert uid_of(guard.name) == (PLAIN_UID if is_root else os.geteuid())
    assert uid_of(database.name) == uid_of(guard.name)
    took_ms = kill_guard_and_look(guard, database)
    record_testsuite_property("database_gone_after_ms", took_ms)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop a uid")
def test_the_kernel_clears_the_death_signal_at_a_change_of_uid_so_the_order_matters() -> None:
    """The trap that the guard's order avoids, shown on this kernel."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        os.setresuid(PLAIN_UID, PLAIN_UID, PLAIN_UID)
        wish = ctypes.c_int(-1)
        libc.prctl(2, ctypes.byref(wish), 0, 0, 0)
        os.write(writer, bytes([wish.value & 0xFF]))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 1) == b"\0"
    os.close(reader)
    os.close(writer)
