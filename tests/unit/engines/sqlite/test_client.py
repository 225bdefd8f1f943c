"""The agent's end of the control protocol, against a server that says what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from primacy.engines.sqlite.client import ControlClient
from primacy.engines.sqlite.control import (
    Beat,
    Done,
    ErrorBranch,
    Failed,
    Marker,
    Observe,
    Reply,
    Request,
    Rest,
    RoleNow,
    Shown,
    reply_frame,
    request_in,
)
from primacy.errors import Conflict, Corrupt, OutcomeUnknown, PrimacyError, Rejected, Unavailable
from primacy.model import NodeId
from primacy.replication.log.record import ORIGIN_POINT
from primacy.wire import FrameDecoder

WITHIN_S = 5.0
SHOWN = Shown(
    cluster="test",
    node=NodeId("a"),
    role=RoleNow.RESTING,
    first=ORIGIN_POINT,
    end=ORIGIN_POINT,
    durable=ORIGIN_POINT,
    applied=ORIGIN_POINT,
    position_text="",
)

Answer = Callable[[Request], Reply | bytes | None]


class Server:
    """Answers as told: a reply, raw bytes, or nothing (None)."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Request] = []
        self.connections = 0
        self.lines: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[None] | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.lines.append(writer)
        self.tasks.append(asyncio.current_task())
        frames = FrameDecoder()
        while data := await reader.read(65536):
            for payload in frames.feed(data):
                number, request = request_in(payload)
                assert not isinstance(request, Failed)
                self.asked.append(request)
                reply = self.answer(request)
                if reply is not None:
                    raw = isinstance(reply, bytes)
                    writer.write(reply if raw else reply_frame(number, reply))  # type: ignore[arg-type] # One of two.
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def served(path: Path, answer: Answer) -> AsyncIterator[tuple[Server, ControlClient]]:
    server = Server(answer)
    listening = await asyncio.start_unix_server(server.serve, path / "control.sock")
    client = ControlClient(path / "control.sock")
    try:
        async with asyncio.timeout(WITHIN_S):
            yield server, client
    finally:
        client.forget()
        listening.close()
        await asyncio.wait([each for each in server.tasks if each is not None])


async def tried(asking: Awaitable[object]) -> PrimacyError | None:
    try:
        await asking
    except PrimacyError as error:
        return error
    return None


async def asked(client: ControlClient, request: Request, within_s: float) -> object:
    if isinstance(request, Observe):
        return await client.observe(within_s=within_s)
    return await client.do(request, within_s=within_s)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type] # A story is a coroutine function.


def test_what_the_server_says_is_what_the_caller_gets(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        match request:
            case Observe():
                return SHOWN
            case Rest():
                return Failed(ErrorBranch.CONFLICT, "it reigns", "End that first.")
            case _:
                return Done(7)

    async def story() -> None:
        async with served(tmp_path, answer) as (_, client):
            assert await client.observe(within_s=1) == SHOWN
            assert await client.do(Marker(), within_s=1) == 7
            with pytest.raises(Conflict, match="it reigns"):
                await client.do(Rest(), within_s=1)

    run(story)


def test_an_observation_is_answered_while_something_else_is_under_way(tmp_path: Path) -> None:
    async def story() -> None:
        def answer(request: Request) -> Reply | None:
            return SHOWN if isinstance(request, Observe) else None

        async with served(tmp_path, answer) as (_, client), asyncio.TaskGroup() as tasks:
            resting = tasks.create_task(tried(client.do(Rest(), within_s=60)))
            assert await client.observe(within_s=1) == SHOWN
            client.forget()
            assert "ended the control connection" in str(await resting)

    run(story)


@pytest.mark.parametrize("request_", [Observe(), Beat()])
def test_a_silent_server_is_not_sent_more_and_more_of_the_same(
    tmp_path: Path, request_: Request
) -> None:
    async def story() -> None:
        async with served(tmp_path, lambda _: None) as (server, client):
            for _ in range(5):
                with pytest.raises((Unavailable, OutcomeUnknown), match="has not answered"):
                    await asked(client, request_, 0.02)
            assert server.asked == [request_]

    run(story)


def test_a_late_answer_is_the_next_askers(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path, lambda _: None) as (server, client):
            with pytest.raises(Unavailable):
                await client.observe(within_s=0.02)
            server.lines[0].write(reply_frame(1, SHOWN))
            assert await client.observe(within_s=1) == SHOWN

    run(story)


def test_a_lost_connection_leaves_a_command_in_doubt_and_is_made_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path, lambda _: None) as (server, client):
            async with asyncio.TaskGroup() as tasks:
                marking = tasks.create_task(tried(client.do(Marker(), within_s=60)))
                while not server.asked:
                    await asyncio.sleep(0.001)
                server.lines[0].close()
                assert isinstance(await marking, OutcomeUnknown)
            server.answer = lambda _: Done(3)
            assert await client.do(Marker(), within_s=1) == 3
            assert server.connections == 2

    run(story)


def test_a_server_that_is_down_or_speaks_nonsense_is_an_error_of_the_tree(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(Unavailable, match=r"control\.sock does not answer"):
            await ControlClient(tmp_path / "control.sock").observe(within_s=1)
        async with served(tmp_path, lambda _: b"HTTP/1.1 200 OK\r\n\r\n") as (_, client):
            with pytest.raises(Corrupt):
                await client.observe(within_s=1)
        async with served(tmp_path, lambda _: Done(1)) as (_, client):
            with pytest.raises(Rejected, match="answered with Done"):
                await client.observe(within_s=1)

    run(story)
