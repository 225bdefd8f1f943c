"""What an HTTP client sees: codes, bodies, limits, and who may ask for what."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.web.conftest import (
    TOKEN,
    WITHIN_S,
    Said,
    Served,
    open_page,
    serving,
)
from tests.integration.web.obeying import cluster_that_obeys

from primacy.replication.records import PAUSE_KEY, SWITCHOVER_KEY, SwitchoverRequest
from primacy.web.exchange import BODY_BYTES_MAX
from primacy.web.health import PATHS
from primacy.web.punctual import CONNECTIONS_MAX

NO_BODY = ("HEAD", "OPTIONS")


def until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


# ---- health


def test_primary_is_the_deadline_page_and_nothing_else(served: Served) -> None:
    assert served.ask("/primary").status == 503  # No page yet.
    with open_page(served.page, left_s=600.0) as writer:
        for path in ("/", "/primary", "/read-write", "/leader", "/master", "/read-only"):
            said = served.ask(path)
            assert (said.status, said.json()["is_ok"]) == (200, True), path
        writer.close(5)
        said = served.ask("/primary")
    assert said.status == 503
    assert said.json()["reason"] == "this node is a replica"


def test_primary_ends_at_the_deadline_though_nobody_writes_the_page(served: Served) -> None:
    with open_page(served.page, left_s=0.5):
        until(lambda: served.ask("/primary").status == 503, "the deadline passes")
        assert served.ask("/primary").json()["reason"] == "the lease's deadline has passed"


@pytest.mark.parametrize("method", NO_BODY)
def test_a_check_without_a_body_has_the_same_code(served: Served, method: str) -> None:
    for path in PATHS:
        said = served.ask(path, method=method)
        assert said.status == served.ask(path).status, path
        assert said.body == b""


def test_a_lag_or_mode_that_is_nonsense_is_refused(served: Served) -> None:
    assert served.ask("/replica?lag=soon").status == 400
    assert served.ask("/replica?mode=both").status == 400
    assert served.ask("/replica?lag=10MB").status == 503


def test_a_host_header_that_is_nonsense_changes_no_answer(served: Served) -> None:
    for name in ("[", "x:y:z", "::", "a b", "http://"):
        for path, status in (("/primary", 503), ("/status", 200), ("/status/", 404)):
            assert served.ask(path, headers={"Host": name}).status == status, (name, path)


# ---- reading


def test_status_history_and_decisions_of_an_empty_store(served: Served) -> None:
    status = served.ask("/status")
    assert status.status == 200
    assert status.json()["cluster"] == "shop"
    assert [each["node"] for each in status.json()["nodes"]] == ["a", "b", "w"]
    assert served.ask("/history").json() == {"epochs": []}
    assert served.ask("/decisions?node=a").json() == {"nodes": {"a": []}}


@pytest.mark.parametrize(
    "path",
    ["/history?limit=0", "/history?limit=1e3", "/history?limit=٣", "/history?limit=99999999999",
     "/decisions?last=-1"],
)  # fmt: skip
def test_a_wrong_question_is_refused_with_a_hint(served: Served, path: str) -> None:
    said = served.ask(path.replace("٣", "%D9%A3"))
    assert said.status == 400
    assert set(said.json()) == {"error", "hint"}


def test_metrics_are_text_for_prometheus(served: Served) -> None:
    said = served.ask("/metrics")
    assert said.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b'primacy_node_role{cluster="shop",node="a",role="replica"} 1.0' in said.body


def test_the_document_describes_every_path(served: Served) -> None:
    document = served.ask("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "post":
                continue
            needs = [each for each in operation.get("parameters", ()) if each.get("required")]
            right = (400,) if needs else (200, 503)
            assert served.ask(path, method=method.upper()).status in right, path
    assert served.ask("/nowhere").status == 404
    assert served.ask("/status", method="DELETE").status == 405


# ---- asking


def test_a_switchover_is_answered_when_it_has_ended(served: Served) -> None:
    with cluster_that_obeys(served.store) as taken:
        said = served.post("/switchover", {"to": "b"})
    assert said.status == 200
    assert said.json() == {
        "is_done": True,
        "detail": "b is primary of epoch 6",
        "request": taken[0].request_id,
    }
    assert isinstance(taken[0], SwitchoverRequest)
    assert taken[0].target == "b"


def test_a_switchover_that_nobody_takes_up_is_a_conflict_and_leaves_nothing(
    served: Served,
) -> None:
    said = served.post("/switchover", {"timeout_s": 1})
    assert said.status == 409
    assert "withdrawn" in said.json()["error"]
    assert asyncio.run(served.store.range(SWITCHOVER_KEY)).items == ()


def test_pause_and_resume(served: Served) -> None:
    assert served.post("/pause", {"reason": "disks"}).json()["is_done"] is True
    assert served.ask("/status").json()["is_paused"] is True
    assert served.post("/resume", {}).status == 200
    assert asyncio.run(served.store.range(PAUSE_KEY)).items == ()


WRONG_BODIES: dict[str, tuple[str, object]] = {
    "no JSON": ("/pause", b"{"),
    "no UTF-8": ("/pause", b'{"reason": "\xff"}'),
    "a list": ("/pause", []),
    "an unknown key": ("/pause", {"why": "x"}),
    "a number for a text": ("/pause", {"reason": 1}),
    "a reason without end": ("/pause", {"reason": "x" * 501}),
    "a witness as target": ("/switchover", {"to": "w"}),
    "a time-out that is too long": ("/switchover", {"timeout_s": 1e9}),
    "a time-out that is no number": ("/switchover", b'{"timeout_s": NaN}'),
    "a loss that is not accepted": ("/failover", {"nodes": ["a"], "accept_loss": False}),
    "the loss of nobody": ("/failover", {"nodes": [], "accept_loss": True}),
    "a loss of which nothing is said": ("/failover", {"nodes": ["a"]}),
}


UNKNOWN: dict[str, object] = {
    "/switchover": {"to": "z"},
    "/failover": {"nodes": ["a", "z"], "accept_loss": True},
}


@pytest.mark.parametrize(("path", "body"), UNKNOWN.items(), ids=UNKNOWN)
def test_a_stranger_is_not_found(served: Served, path: str, body: object) -> None:
    said = served.post(path, body)
    assert said.status == 404
    assert said.json()["error"] == "there is no node 'z': the file's nodes are a, b, w"


@pytest.mark.parametrize(("path", "body"), WRONG_BODIES.values(), ids=WRONG_BODIES)
def test_a_wrong_body_is_refused(served: Served, path: str, body: object) -> None:
    said = served.post(path, body)
    assert said.status == 400, said.body
    assert set(said.json()) == {"error", "hint"}


def test_a_page_in_a_browser_cannot_ask(served: Served) -> None:
    """What a form or a simple request of another site can send."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        said = served.ask("/resume", method="POST", body=b"{}", headers={"Content-Type": kind})
        assert said.status == 415


def test_a_name_that_leads_to_loopback_cannot_ask_without_a_token(served: Served) -> None:
    """What a page whose own name was pointed to this host can send."""
    for name, status in (
        ("evil.example", 403),
        ("evil.example:7104", 403),
        ("127.0.0.1.evil.example", 403),
        ("[", 403),
        ("localhost:7104", 200),
        ("127.0.0.2", 200),
        ("[::1]:7104", 200),
    ):
        headers = {"Host": name}
        said = served.ask("/resume", method="POST", body={}, headers=headers)
        assert said.status == status, name


# ---- who may


CHANGES: dict[str, object] = {
    "/switchover": {},
    "/failover": {"nodes": ["a"], "accept_loss": True},
    "/pause": {},
    "/resume": {},
}


def test_without_the_token_no_change_is_made_and_everything_can_be_read(tmp_path: Path) -> None:
    with serving(tmp_path, token=TOKEN) as served:
        for path, body in CHANGES.items():
            for wrong in (None, "", "x" * len(TOKEN), TOKEN[:-1], TOKEN + "x", "Tökén"):
                headers = {} if wrong is None else {"Authorization": f"Bearer {wrong}"}
                said = served.ask(path, method="POST", body=body, headers=headers)
                assert said.status == 401, (path, wrong)
                assert said.headers["www-authenticate"] == "Bearer"
        for path in ("/status", "/history", "/decisions", "/metrics", "/openapi.json"):
            assert served.ask(path).status == 200
        assert asyncio.run(served.store.range("cluster/", is_prefix=True)).items == ()
        assert served.post("/pause", {}, token=TOKEN).status == 200
        assert [each.name for each in served.events if each.name == "api-refused"]


def test_beyond_loopback_nobody_may_without_a_token(tmp_path: Path) -> None:
    with serving(tmp_path, is_loopback=False) as served:
        for path, body in CHANGES.items():
            said = served.post(path, body, token=TOKEN)
            assert said.status == 403
            assert "api.token_file" in said.json()["hint"]


# ---- limits


def test_a_body_that_is_too_long_is_refused_before_it_is_read(served: Served) -> None:
    said = served.post("/pause", b" " * (BODY_BYTES_MAX + 1))
    assert said.status == 413


def test_a_head_that_is_too_long_is_refused(served: Served) -> None:
    with served.connect() as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000)
        assert line.recv(100).startswith(b"HTTP/1.1 400")


def answers(served: Served) -> bool:
    try:
        return served.ask("/openapi.json").status == 200
    except OSError:  # Turned away: too many are here.
        return False


def test_whoever_is_slow_is_cut_and_keeps_nobody_out_for_long(served: Served) -> None:
    """Connections that say nothing, half a head, or half a body; and more of them than may be."""
    head = "POST /pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with served.connect() as late_body, served.connect() as quiet, served.connect() as late_head:
        late_body.sendall(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        late_head.sendall(b"GET / HTTP/1.1\r\n")
        crowd = [served.connect() for _ in range(CONNECTIONS_MAX)]
        until(lambda: answers(served), "the silent ones are closed")
        assert late_body.recv(100).startswith(b"HTTP/1.1 408")
        assert quiet.recv(100) == b""
        assert late_head.recv(100) == b""
        for each in crowd:
            each.close()


def test_whoever_reads_nothing_is_cut(served: Served) -> None:
    """It asks again and again on one connection, and takes no answer. Whether it hears of its end
    is the kernel's affair: its window is shut. The server's side of the connection is gone."""
    with served.connect() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(1.0)
        _, own_port = line.getsockname()
        with pytest.raises(OSError):  # noqa: PT011 - full for a second, or cut: either is right.
            _ask_for_ever(line)
        until(lambda: not is_connected(served.door.port, own_port), "the server has let it go")


def _ask_for_ever(line: socket.socket) -> None:
    while True:
        line.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


def is_connected(port: int, peer_port: int) -> bool:
    """From the kernel's table: local and remote address, then the state."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(
        (int(local[-4:], 16), int(remote[-4:], 16), state) == (port, peer_port, "01")
        for _, local, remote, state, *_ in rows
    )


def test_a_request_that_waits_holds_up_no_other(served: Served) -> None:
    asked = threading.Thread(target=served.post, args=("/switchover", {"timeout_s": 2}))
    asked.start()
    until(lambda: bool(asyncio.run(served.store.range(SWITCHOVER_KEY)).items), "the request stands")
    assert served.ask("/status").json()["switchover"] is not None
    assert served.post("/switchover", {}).status == 409
    asked.join(WITHIN_S)


def test_an_agent_that_stops_waits_for_no_request(tmp_path: Path) -> None:
    said: list[Said] = []

    def ask_in_vain() -> None:
        said.append(served.post("/switchover", {"timeout_s": 600}))

    with serving(tmp_path) as served:
        asked = threading.Thread(target=ask_in_vain)
        asked.start()
        until(lambda: bool(asyncio.run(served.store.range(SWITCHOVER_KEY)).items), "it stands")
    asked.join(WITHIN_S)
    assert [each.status for each in said] == [202]
    assert said[0].json()["error"] == "this agent stops"
    assert asyncio.run(served.store.range(SWITCHOVER_KEY)).items == ()


def test_a_taken_port_is_told_and_tried_again(tmp_path: Path) -> None:
    with serving(tmp_path, is_awaited=False) as served:
        until(lambda: "api-open" in served.names(), "it opens")
    with (
        socket.create_server((served.door.host, served.door.port)) as taken,
        serving(tmp_path, door=served.door, is_awaited=False) as late,
    ):
        until(lambda: "api-stopped" in late.names(), "it says that the port is taken")
        taken.close()
        until(lambda: "api-open" in late.names(), "it opens after all")
        assert late.ask("/openapi.json").status == 200
