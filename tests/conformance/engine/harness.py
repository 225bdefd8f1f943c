"""What the suite asks of an engine beside the contract: nodes, a client, rough hands."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from pathlib import Path
from typing import Protocol

from primacy.engines.api import Engine
from primacy.model import NodeId

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
"""A cluster that all tests share; `Stage.ready` mends it."""
D, E = NodeId("d"), NodeId("e")
"""Spare nodes without a disk: each test makes of them what it needs."""
MEMBERS, SPARES = (A, B, C), (D, E)


class Answer(Enum):
    """What a client was told of its write."""

    ACKNOWLEDGED = "it is committed"
    REFUSED = "it is not committed, and will not be"
    UNKNOWN = "nothing, or that nobody knows"


class Rubbish:
    """Folders that nobody needs: a disk takes milliseconds to remove each file, so others do it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._removing: list[asyncio.subprocess.Process] = []
        self._count = 0

    async def throw(self, folder: Path) -> None:
        self._count += 1
        thrown = folder.rename(self._root / f"rubbish-{self._count}")
        self._removing.append(await asyncio.create_subprocess_exec("rm", "-rf", str(thrown)))

    async def gone(self) -> None:
        for each in self._removing:
            await each.wait()


class Harness(Protocol):
    """Five nodes of one engine. Rows are whole numbers in one table."""

    observed_within_s: float
    """What `observe` of a server that does not answer may take."""

    @property
    def why_applier_cannot_be_held(self) -> str:
        """Empty where `applier_held` works."""
        ...

    def engine(self, node: NodeId) -> Engine: ...

    def restart_agent(self, node: NodeId) -> None:
        """Another engine object over the same files, as after a crash of the agent. Not attached
        yet."""
        ...

    async def make(self, node: NodeId) -> None:
        """ABSENT -> STOPPED, as `initialise` does it, and cheaper."""
        ...

    async def wipe(self, node: NodeId) -> None:
        """The server and every file of the node are gone, its notes too: another disk."""
        ...

    def root(self, node: NodeId) -> Path:
        """All files of the node. It need not be there."""
        ...

    def data(self, node: NodeId) -> Path:
        """Its data directory."""
        ...

    def pid(self, node: NodeId) -> int:
        """Of the server that runs."""
        ...

    async def publish_more(self, node: NodeId, count: int) -> None:
        """As if the node, whose server is down, had published a log that is longer by `count`."""
        ...

    def serving(self, node: NodeId) -> AbstractAsyncContextManager[None]:
        """The node gives clones inside."""
        ...

    def applier_held(self, node: NodeId) -> AbstractAsyncContextManager[None]:
        """Inside, the node receives the next rows and does not apply them."""
        ...

    async def define(self, node: NodeId) -> None:
        """As an administrator, on the first primary: the table, and whoever writes to it."""
        ...

    async def change(self, node: NodeId, statement: str) -> None:
        """As an administrator: SQL that every engine understands; `{t}` is the table."""
        ...

    async def write(self, node: NodeId, row: int, *, within_s: float) -> Answer:
        """As a client that is connected to this very node."""
        ...

    async def read(self, node: NodeId) -> Sequence[int]:
        """All rows that this node shows, in order."""
        ...

    async def close(self) -> None:
        """End what was started."""
        ...
