"""MariaDB's backup programs as child processes: their bytes, their words, their exit code."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from primacy.engines.process import SEARCH_PATH, program_path
from primacy.errors import PrimacyError, Unavailable

WORDS_MAX = 4000
"""Of a program's complaints: the end is what matters."""


@asynccontextmanager
async def running(
    argv: Sequence[str], *, has_input: bool = False, has_output: bool = False
) -> AsyncIterator["Program"]:
    """The program runs inside; leaving kills it if it still does."""
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        program_path(argv[0]),
        *argv[1:],
        stdin=pipe if has_input else nothing,
        stdout=pipe if has_output else nothing,
        stderr=pipe,
        env={"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"},
    )
    problem: PrimacyError | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            program = Program(argv[0], process)
            tasks.create_task(program.listen())
            try:
                yield program
            except PrimacyError as error:
                problem = error  # Raised below: a task group would wrap it in a group.
            finally:
                program.kill()
    finally:
        await process.wait()
    if problem is not None:
        raise problem


class Program:
    """A child process whose complaints are read while it runs."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._tail = b""
        self._has_said_all = asyncio.Event()

    @property
    def words(self) -> str:
        """The end of what it wrote to its standard error."""
        return self._tail.decode(errors="replace").strip()

    async def listen(self) -> None:
        stream = self._process.stderr
        while stream is not None and (chunk := await stream.read(1 << 14)):
            self._tail = (self._tail + chunk)[-WORDS_MAX:]
        self._has_said_all.set()

    async def read(self, size: int) -> bytes:
        """Empty at the end."""
        stream = self._process.stdout
        return b"" if stream is None else await stream.read(size)

    async def write(self, content: bytes) -> None:
        """`Unavailable` where the program has ended."""
        stream = self._process.stdin
        try:
            if stream is not None:
                stream.write(content)
                await stream.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            await self._has_said_all.wait()
            raise Unavailable(
                f"{self._name} ended early: {self.words}", hint="See above."
            ) from error

    async def ended(self) -> int:
        """Its exit code, once its input is closed and its words are read."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        code = await self._process.wait()
        await self._has_said_all.wait()
        return code

    async def succeeded(self) -> None:
        """`Unavailable` with its words for any exit code but 0."""
        code = await self.ended()
        if code != 0:
            raise Unavailable(
                f"{self._name} failed with code {code}: {self.words}", hint="Its words say why."
            )

    def kill(self) -> None:
        if self._process.returncode is not None:
            return
        try:
            self._process.kill()
        except ProcessLookupError:
            return  # It has ended by itself.
