"""The two ways from a command to the cluster: its store, or one agent's HTTP API.

Both give the same answers, since the API calls the same functions (`cluster.control`). The store is
the default: it needs no particular agent, and its doors are found in the file. `--api` needs no
file, and is for a host that may reach the API and not the store.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from primacy.cli.options import loaded
from primacy.cli.remote import Remote
from primacy.cli.session import roster, singles_of, store_of
from primacy.clock import SystemClock
from primacy.cluster.control import diverged, durability, requests, rolling, tasks
from primacy.cluster.control.answers import (
    ClusterAnswer,
    DecisionsAnswer,
    DivergedListAnswer,
    DivergedTextAnswer,
    DoneAnswer,
    HistoryAnswer,
    PolicyAnswer,
    RestartAnswer,
    done_answer,
)
from primacy.cluster.control.durability import Wish
from primacy.cluster.control.past import (
    decisions_answer,
    history_answer,
    read_decisions,
    read_history,
)
from primacy.cluster.control.picture import answer_of
from primacy.cluster.control.reading import read_picture
from primacy.cluster.control.requests import Desk, Tell
from primacy.cluster.control.rolling import ALL_WELL, Progress
from primacy.config import ENGINES
from primacy.coordination.api import Store
from primacy.engines.api import Capabilities
from primacy.model import NodeId

REMOTE_SLACK_S = 15.0
"""An agent withdraws a request that took too long and then answers: time for that."""

RESTART_STEPS_MAX = 50
"""Of a rolling restart: so many times its patience for one step is longer than any takes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartWish:
    """What is to be restarted."""

    node: str | None
    """None: all, one at a time."""
    databases: bool
    agents: bool
    timeout_s: float


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

    async def policy(self) -> PolicyAnswer: ...

    async def set_policy(self, wish: Wish, *, within_s: float, tell: Tell) -> PolicyAnswer: ...

    async def reset_policy(self, *, within_s: float, tell: Tell) -> PolicyAnswer: ...

    async def diverged(self) -> DivergedListAnswer: ...

    async def diverged_text(self, ident: str) -> DivergedTextAnswer: ...

    async def dismiss(self, ident: str | None) -> DivergedListAnswer: ...

    async def reinit(
        self, node: str, *, is_data_given_up: bool, timeout_s: float, tell: Tell
    ) -> DoneAnswer: ...

    async def restart(self, wish: RestartWish, progress: Progress, tell: Tell) -> RestartAnswer:
        """`progress` hears how far it came, as far as this way knows before the end."""
        ...


@dataclass(frozen=True, slots=True)
class ThroughStore:
    desk: Desk
    singles: Mapping[NodeId, Store]
    capabilities: Capabilities

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

    async def policy(self) -> PolicyAnswer:
        return await durability.show(self.desk)

    async def set_policy(self, wish: Wish, *, within_s: float, tell: Tell) -> PolicyAnswer:
        return await durability.set_policy(
            self.desk, wish, self.capabilities, within_s=within_s, tell=tell
        )

    async def reset_policy(self, *, within_s: float, tell: Tell) -> PolicyAnswer:
        return await durability.reset_policy(self.desk, within_s=within_s, tell=tell)

    async def diverged(self) -> DivergedListAnswer:
        return await diverged.list_diverged(self.desk.store)

    async def diverged_text(self, ident: str) -> DivergedTextAnswer:
        facts = await diverged.find_diverged(self.desk.store, ident)
        return await asyncio.to_thread(diverged.read_text, facts)

    async def dismiss(self, ident: str | None) -> DivergedListAnswer:
        return await diverged.dismiss(self.desk, ident)

    async def reinit(
        self, node: str, *, is_data_given_up: bool, timeout_s: float, tell: Tell
    ) -> DoneAnswer:
        return done_answer(
            await tasks.reinit(
                self.desk,
                node,
                is_data_given_up=is_data_given_up,
                timeout_s=timeout_s,
                tell=tell,
            )
        )

    async def restart(self, wish: RestartWish, progress: Progress, tell: Tell) -> RestartAnswer:
        await rolling.restart(
            self.desk,
            parts=rolling.parts_of(databases=wish.databases, agents=wish.agents),
            only=None if wish.node is None else self.desk.roster.node(wish.node),
            progress=progress,
            timeout_s=wish.timeout_s,
            tell=tell,
        )
        return progress.answer(is_done=True, detail=ALL_WELL)


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
        body = {"to": to, "timeout_s": timeout_s}
        return await self._ended("/switchover", body, DoneAnswer, timeout_s, tell)

    async def failover(
        self, *, nodes: Sequence[str], is_loss_accepted: bool, timeout_s: float, tell: Tell
    ) -> DoneAnswer:
        body = {
            "nodes": list(nodes),
            "accept_loss": is_loss_accepted,
            "timeout_s": timeout_s,
        }
        return await self._ended("/failover", body, DoneAnswer, timeout_s, tell)

    async def pause(self, *, reason: str) -> DoneAnswer:
        return await self._post("/pause", {"reason": reason}, DoneAnswer)

    async def resume(self) -> DoneAnswer:
        return await self._post("/resume", {}, DoneAnswer)

    async def policy(self) -> PolicyAnswer:
        return await asyncio.to_thread(self.remote.get, "/durability", {}, PolicyAnswer)

    async def set_policy(self, wish: Wish, *, within_s: float, tell: Tell) -> PolicyAnswer:
        body = {**asdict(wish), "within_s": within_s}
        return await self._ended("/durability/set", body, PolicyAnswer, within_s, tell)

    async def reset_policy(self, *, within_s: float, tell: Tell) -> PolicyAnswer:
        body = {"within_s": within_s}
        return await self._ended("/durability/reset", body, PolicyAnswer, within_s, tell)

    async def diverged(self) -> DivergedListAnswer:
        return await asyncio.to_thread(self.remote.get, "/diverged", {}, DivergedListAnswer)

    async def diverged_text(self, ident: str) -> DivergedTextAnswer:
        return await asyncio.to_thread(
            self.remote.get, "/diverged/show", {"id": ident}, DivergedTextAnswer
        )

    async def dismiss(self, ident: str | None) -> DivergedListAnswer:
        return await self._post("/diverged/dismiss", {"id": ident}, DivergedListAnswer)

    async def reinit(
        self, node: str, *, is_data_given_up: bool, timeout_s: float, tell: Tell
    ) -> DoneAnswer:
        body = {"node": node, "give_up_data": is_data_given_up, "timeout_s": timeout_s}
        return await self._ended("/reinit", body, DoneAnswer, timeout_s, tell)

    async def restart(self, wish: RestartWish, progress: Progress, tell: Tell) -> RestartAnswer:
        del progress  # Where it ends early, the agent's own words say how far it came.
        within_s = wish.timeout_s * RESTART_STEPS_MAX
        return await self._ended("/restart", asdict(wish), RestartAnswer, within_s, tell)

    async def _ended(
        self, path: str, body: Mapping[str, object], kind: type[T], within_s: float, tell: Tell
    ) -> T:
        tell(f"asked {self.remote.url}, which answers when it has ended")
        return await self._post(path, body, kind, within_s)

    async def _post(
        self, path: str, body: Mapping[str, object], kind: type[T], within_s: float = 0.0
    ) -> T:
        return await asyncio.to_thread(
            self.remote.post, path, body, kind, within_s + REMOTE_SLACK_S
        )


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
        desk = Desk(store, roster(found), SystemClock())
        yield ThroughStore(desk, singles, ENGINES[found.cluster.engine])
