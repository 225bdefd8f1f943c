"""A command's way over HTTP: the same answers as by the store, and the same branches of errors."""

import asyncio
import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from tests.integration.web.conftest import (
    CAPABILITIES,
    ROSTER,
    TOKEN,
    WITHIN_S,
    Served,
    serving,
)
from tests.integration.web.obeying import cluster_that_obeys
from tests.ports import free_ports

from primacy.cli.main import exit_code_of
from primacy.cli.remote import Remote
from primacy.cli.ways import ThroughApi, ThroughStore, Way
from primacy.clock import SystemClock
from primacy.cluster.control.requests import Desk, tell_nobody
from primacy.coordination.api import Put, Txn
from primacy.errors import (
    Conflict,
    NotFound,
    OutcomeUnknown,
    PrimacyError,
    Rejected,
    Unavailable,
)
from primacy.model import Epoch, NodeId
from primacy.replication.records import (
    DECISIONS_PREFIX,
    HISTORY_PREFIX,
    SWITCHOVER_KEY,
    Decision,
    HistoryRecord,
    encoded,
    epoch_key,
)


def by_http(served: Served, token: str | None = None) -> Way:
    return ThroughApi(Remote(served.url, token))


def by_store(served: Served) -> Way:
    singles = dict.fromkeys(ROSTER.members, served.store)
    return ThroughStore(Desk(served.store, ROSTER, SystemClock()), singles, CAPABILITIES)


async def _remembers(served: Served) -> None:
    history = HistoryRecord(
        epoch=Epoch(3),
        node=NodeId("a"),
        kind="failover",
        reason="sealed",
        steps_s={"sealing": 0.25},
        wall_s=1_800_000_000.0,
        accepted_loss=(NodeId("b"),),
    )
    decision = Decision(
        node=NodeId("a"), number=7, action="Wait", reason="well", epoch=Epoch(3), wall_s=1.0
    )
    await served.store.txn(
        Txn(
            then=(
                Put(epoch_key(HISTORY_PREFIX, Epoch(3)), encoded(history)),
                Put(f"{DECISIONS_PREFIX}a/0007", encoded(decision)),
            )
        )
    )


def test_both_ways_give_the_same_answers(served: Served) -> None:
    async def story() -> None:
        await _remembers(served)
        ways = (by_http(served), by_store(served))
        for over_http, from_store in (
            [await way.history(limit=20) for way in ways],
            [await way.decisions(last=5, node=None) for way in ways],
            [await way.decisions(last=5, node="b") for way in ways],
            [await way.status() for way in ways],
        ):
            assert over_http == from_store
        with cluster_that_obeys(served.store):
            async with ticking():
                for way in ways:
                    done = await way.switchover(to="b", timeout_s=20.0, tell=tell_nobody)
                    assert done.detail == "b is primary of epoch 6"
                    done = await way.failover(
                        nodes=["a"], is_loss_accepted=True, timeout_s=20.0, tell=tell_nobody
                    )
                    assert done.is_done

    asyncio.run(story())


@asynccontextmanager
async def ticking() -> AsyncIterator[None]:
    """The memory store was made for one loop: woken from another thread, this one must go round."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.02)

    task = asyncio.get_running_loop().create_task(tick())
    try:
        yield
    finally:
        task.cancel()


def test_both_ways_refuse_alike(served: Served) -> None:
    async def story() -> None:
        await served.store.txn(Txn(then=(Put(SWITCHOVER_KEY, b"another"),)))
        for way in (by_http(served), by_store(served)):
            with pytest.raises(Rejected, match="no node 'z'"):
                await way.switchover(to="z", timeout_s=5.0, tell=tell_nobody)
            with pytest.raises(Rejected, match="may exist only on a"):
                await way.failover(
                    nodes=["a"], is_loss_accepted=False, timeout_s=5.0, tell=tell_nobody
                )
            with pytest.raises(Conflict, match="under way"):
                await way.switchover(to=None, timeout_s=5.0, tell=tell_nobody)
        with pytest.raises(NotFound):
            await by_store(served).decisions(last=1, node="z")

    asyncio.run(story())


def test_a_wrong_token_is_wrong_input(tmp_path: Path) -> None:
    with serving(tmp_path, token=TOKEN) as served:
        with pytest.raises(Rejected, match="need the token"):
            asyncio.run(by_http(served).pause(reason=""))
        with pytest.raises(Rejected, match="the token is wrong"):
            asyncio.run(by_http(served, "x" * 20).pause(reason=""))
        assert asyncio.run(by_http(served, TOKEN).pause(reason="")).is_done


def test_nobody_there_means_that_nothing_was_asked() -> None:
    way = ThroughApi(Remote(f"http://127.0.0.1:{free_ports(1)[0]}"))
    with pytest.raises(Unavailable, match="does not answer"):
        asyncio.run(way.resume())


@contextmanager
def stranger(status: int, body: bytes) -> Iterator[str]:
    """Some other server: every request gets this answer. No body: the connection is cut."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer()

        def _answer(self) -> None:
            if body:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_arguments: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(WITHIN_S)


PROBLEM = b'{"error": "said so", "hint": "Do this."}'

STRANGE: dict[str, tuple[int, bytes, type[PrimacyError], str]] = {
    "an answer that is no answer": (200, b"<html>", Rejected, "what is no DoneAnswer"),
    "taken up, its end not seen": (202, PROBLEM, OutcomeUnknown, "said so"),
    "refused by the cluster": (409, PROBLEM, Conflict, "said so"),
    "a wrong request": (400, PROBLEM, Rejected, "said so"),
    "no majority": (503, PROBLEM, Unavailable, "said so"),
    "a proxy's own page": (502, b"<html>", OutcomeUnknown, "answered 502"),
    "a connection that is cut": (0, b"", OutcomeUnknown, "was lost"),
}


@pytest.mark.parametrize(("status", "body", "kind", "says"), STRANGE.values(), ids=STRANGE)
def test_what_becomes_of(status: int, body: bytes, kind: type[PrimacyError], says: str) -> None:
    with stranger(status, body) as url, pytest.raises(kind, match=says):
        asyncio.run(ThroughApi(Remote(url)).resume())


WRONG_LINES: dict[str, tuple[list[str], str]] = {
    "no address": (["status", "--api", "10.0.0.1"], "no address of an agent"),
    "another scheme": (["status", "--api", "ftp://10.0.0.1"], "no address of an agent"),
    "a token that is not there": (
        ["resume", "--api", "http://127.0.0.1:1", "--token-file", "/nonexistent"],
        "No such file",
    ),
}


@pytest.mark.parametrize(("line", "says"), WRONG_LINES.values(), ids=WRONG_LINES)
def test_a_wrong_line_is_refused(
    line: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(line) == 2
    assert says in capfd.readouterr().err


def test_a_token_that_others_may_read_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    line = ["resume", "--api", "http://127.0.0.1:1", "--token-file", str(file)]
    assert exit_code_of(line) == 2
    assert "others may read it (mode 0644)" in capfd.readouterr().err
