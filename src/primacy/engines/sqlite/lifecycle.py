"""The life of the server: write down what it is to be, start it under its guard, end it.

A start cuts nothing and applies nothing: the server rests, and what stands in its log behind the
database waits until its role is known.
"""

import sys
from pathlib import Path

import msgspec

import primacy
from primacy.clock import Clock
from primacy.engines.api import ServerState
from primacy.engines.notes import replace_durably
from primacy.engines.process import OUTPUT_NAME, ServerProcess
from primacy.engines.promises import Promises
from primacy.engines.sqlite.client import ControlClient
from primacy.engines.sqlite.directory import Directory
from primacy.engines.sqlite.server.spec import PullSpec, Spec
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch
from primacy.runtime.threads import to_its_end

WORDS_BYTES_MAX = 4096
OUTPUT_BYTES_MAX = 16 << 20
"""Of what servers have written; at the next start it goes aside, and what was aside goes."""
PROGRAM = "primacy.engines.sqlite.server"
SOURCES = str(Path(primacy.__file__).resolve().parent.parent)
"""Where this primacy is: the server is of the same release."""


class Lifecycle:
    """Starts and ends the server of one node."""

    def __init__(
        self,
        settings: SqliteSettings,
        *,
        directory: Directory,
        promises: Promises,
        process: ServerProcess,
        client: ControlClient,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._promises = promises
        self._process = process
        self._client = client
        self._clock = clock
        self.is_starting = False
        """Between the launch and the first answer: silent, and not hung."""

    def check_startable(self) -> None:
        state, why = self._directory.state()
        if state is not ServerState.STOPPED:
            raise Conflict(
                f"there is nothing to start: {why}", hint="`initialise` or `clone` it first."
            )

    async def start(self) -> None:
        """STOPPED -> RUNNING. Where a server runs, it answers when this returns."""
        self.is_starting = True
        try:
            if not self._process.is_alive():
                await self._launch()
            self._write_pid()
            await self._process.ready(
                lambda: self._client.observe(within_s=self._settings.timing.health_s),
                within_s=self._settings.timing.start_s,
                clock=self._clock,
                last_words=self.last_words,
                log=self._output,
            )
        finally:
            self.is_starting = False

    async def _launch(self) -> None:
        self._client.forget()
        starts = self._promises.notes.starts + 1
        self._promises.note(starts=starts, following_epoch=Epoch(0))
        await to_its_end(self._prepare)
        await self._process.start(
            [sys.executable, "-P", "-m", PROGRAM, str(self._settings.layout.spec)],
            environment={"PYTHONPATH": SOURCES},
        )

    async def stop(self) -> None:
        """SIGTERM; SIGKILL for one whose commits wait, or that hangs."""
        if not self._process.is_alive():
            return
        try:
            shown = await self._client.observe(within_s=self._settings.timing.health_s)
        except Unavailable:
            await self.kill()
            return
        if shown.waiting_commits:
            await self.kill()
            return
        self._client.forget()
        await self._process.stop(within_s=self._settings.timing.stop_s)
        self._client.forget()

    async def kill(self) -> None:
        await self._process.kill()
        self._client.forget()

    def _prepare(self) -> None:
        """Folders, the secret and the specification, as this version of primacy wants them."""
        settings, layout = self._settings, self._settings.layout
        for folder in (layout.run, layout.guard, layout.secrets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in (
            (layout.secret, settings.cluster_secret.hex().encode() + b"\n"),
            (layout.spec, msgspec.json.encode(spec_of(settings)) + b"\n"),
        ):
            if not path.exists() or path.read_bytes() != content:
                replace_durably(path, content)
        keep_short(self._output)

    def _write_pid(self) -> None:
        guarded = self._process.guarded
        if guarded is not None:
            text = f"{guarded.database.name.pid}\n"
            self._settings.layout.pid_file.write_text(text, encoding="ascii")

    @property
    def _output(self) -> Path:
        return self._settings.layout.guard / OUTPUT_NAME

    def last_words(self) -> str:
        """The last line that a server wrote."""
        try:
            with self._output.open("rb") as file:
                file.seek(max(0, self._output.stat().st_size - WORDS_BYTES_MAX))
                lines = file.read().decode(errors="replace").split("\n")
        except FileNotFoundError:
            return "it wrote nothing"
        return next((line for line in reversed(lines) if line.strip()), "it wrote nothing")


def keep_short(path: Path, *, bytes_max: int = OUTPUT_BYTES_MAX) -> None:
    """Move a file that has grown beyond that aside, over the one that was there."""
    if path.exists() and path.stat().st_size > bytes_max:
        path.replace(path.with_name(f"{path.name}.1"))


def spec_of(settings: SqliteSettings) -> Spec:
    """What the server of this node is started with."""
    layout, node = settings.layout, settings.node
    own, pull = settings.doors[node], settings.pull_doors[node]
    return Spec(
        cluster=settings.cluster,
        node=node,
        directory=str(layout.data),
        database=settings.database,
        host=own.host,
        port=own.port,
        users_path="" if settings.users_path is None else str(settings.users_path),
        page_path=str(settings.page),
        pull=PullSpec(host=pull.host, port=pull.port, secret_path=str(layout.secret)),
        control_path=str(layout.control),
        logging=settings.logging,
        limits=settings.limits,
    )
