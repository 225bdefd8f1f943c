"""The two ways from a command to the cluster: its store, or one agent's HTTP API.

Both give the same answers, since the API calls the same functions (`cluster.control`). The store is
the default: it needs no particular agent, and its doors are found in the file. `--api` needs no
file, and is for a host that may reach the API and not the store.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from primacy.cli.options import loaded
from primacy.cli.remote import Remote
from primacy.cli.session import roster, singles_of, store_of
from primacy.clock import SystemClock
from primacy.cluster.control import requests
from primacy.cluster.control.answers import (
    ClusterAnswer,
    DecisionsAnswer,
    DoneAnswer,
    HistoryAnswer,
    done_answer,
)
from primacy.cluster.control.past import (
    decisions_answer,
    history_answer,
    read_decisions,
    read_history,
)
from primacy.cluster.control.picture import answer_of
from primacy.cluster.control.reading import read_picture
from primacy.cluster.control.requests import Desk, Tell
from primacy.coordination.api import Store
from primacy.model import NodeId

REMOTE_SLACK_S = 15.0
"""An agent withdraws a request that took too long and then answers: time for that."""


class Way(Protocol):
    """Errors: those of `cluster.control`, and `Unavailable` where nobody answers."""

    async def status(self) -> ClusterAnswer: ...

    async def history(self, *, limit: int) -> HistoryAnswer: ...

    async def decisions(self, *, last: int, node: str | None) -> DecisionsAnswer: ...

    async def switchover(self, *, to: str | None, timeout_s: float, tell: Tell) -> DoneAnswer: ...

    async def failover(
        self, *, nodes: Sequence[str], is_loss_accepted: bool, timeout_s: float, tell: Tell
    ) -> DoneAnswer: ...

    async def pause(self, *, reason: str) -> DoneAnswer: ...

    async def resume(self) -> DoneAnswer: ...


@dataclass(frozen=True, slots=True)
class ThroughStore:
    desk: Desk
    singles: Mapping[NodeId, Store]

    async def status(self) -> ClusterAnswer:
        desk = self.desk
        return answer_of(
            await read_picture(desk.roster, desk.store, self.singles, clock=desk.clock)
        )

    async def history(self, *, limit: int) -> HistoryAnswer:
        return history_answer(await read_history(self.desk.store, limit=limit))

    async def decisions(self, *, last: int, node: str | None) -> DecisionsAnswer:
        desk = self.desk
        return decisions_answer(await read_decisions(desk.store, desk.roster, last=last, node=node))

    async def switchover(self, *, to: str | None, timeout_s: float, tell: Tell) -> DoneAnswer:
        return done_answer(
            await requests.switchover(self.desk, to=to, timeout_s=timeout_s, tell=tell)
        )

    async def failover(
        self, *, nodes: Sequence[str], is_loss_accepted: bool, timeout_s: float, tell: Tell
    ) -> DoneAnswer:
        return done_answer(
            await requests.failover(
                self.desk,
                nodes=nodes,
                is_loss_accepted=is_loss_accepted,
                timeout_s=timeout_s,
                tell=tell,
            )
        )

    async def pause(self, *, reason: str) -> DoneAnswer:
        return DoneAnswer(is_done=True, detail=await requests.pause(self.desk, reason=reason))

    async def resume(self) -> DoneAnswer:
        return DoneAnswer(is_done=True, detail=await requests.resume(self.desk))


@dataclass(frozen=True, slots=True)
class ThroughApi:
    remote: Remote

    async def status(self) -> ClusterAnswer:
        return await asyncio.to_thread(self.remote.get, "/status", {}, ClusterAnswer)

    async def history(self, *, limit: int) -> HistoryAnswer:
        return await asyncio.to_thread(
            self.remote.get, "/history", {"limit": str(limit)}, HistoryAnswer
        )

    async def decisions(self, *, last: int, node: str | None) -> DecisionsAnswer:
        query = {"last": str(last)} | ({} if node is None else {"node": node})
        return await asyncio.to_thread(self.remote.get, "/decisions", query, DecisionsAnswer)

    async def switchover(self, *, to: str | None, timeout_s: float, tell: Tell) -> DoneAnswer:
        tell(f"asked {self.remote.url}, which answers when it has ended")
        return await self._post("/switchover", {"to": to, "timeout_s": timeout_s}, timeout_s)

    async def failover(
        self, *, nodes: Sequence[str], is_loss_accepted: bool, timeout_s: float, tell: Tell
    ) -> DoneAnswer:
        tell(f"asked {self.remote.url}, which answers when it has ended")
        body = {
            "nodes": list(nodes),
            "accept_loss": is_loss_accepted,
            "timeout_s": timeout_s,
        }
        return await self._post("/failover", body, timeout_s)

    async def pause(self, *, reason: str) -> DoneAnswer:
        return await self._post("/pause", {"reason": reason})

    async def resume(self) -> DoneAnswer:
        return await self._post("/resume", {})

    async def _post(
        self, path: str, body: Mapping[str, object], timeout_s: float = 0.0
    ) -> DoneAnswer:
        within_s = timeout_s + REMOTE_SLACK_S
        return await asyncio.to_thread(self.remote.post, path, body, DoneAnswer, within_s)


@asynccontextmanager
async def way_of(
    config: Path | None, api: str | None, token_file: Path | None
) -> AsyncIterator[Way]:
    """As the command line says. `Rejected` for a file or an address that cannot be used."""
    if api is not None:
        yield ThroughApi(Remote.at(api, token_file))
        return
    found = loaded(config)
    async with store_of(found) as store, singles_of(found) as singles:
        yield ThroughStore(Desk(store, roster(found), SystemClock()), singles)
