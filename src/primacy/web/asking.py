"""What only an operator may: each request of `cluster.control`, as an endpoint behind the token.

The one read among them shows rows that clients wrote.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from primacy.cluster.control import diverged, durability, requests, rolling, tasks
from primacy.cluster.control.answers import DoneAnswer, done_answer
from primacy.cluster.control.durability import Wish
from primacy.cluster.control.requests import Desk
from primacy.cluster.control.rolling import ALL_WELL, Progress
from primacy.engines.api import Capabilities
from primacy.errors import PrimacyError, Rejected
from primacy.model import NodeId
from primacy.telemetry import Event, Sink
from primacy.web.access import Access
from primacy.web.bodies import (
    DismissBody,
    DurabilityBody,
    DurabilityResetBody,
    FailoverBody,
    PauseBody,
    ReinitBody,
    RestartBody,
    ResumeBody,
    SwitchoverBody,
)
from primacy.web.exchange import JSON, Refused, as_response, path_of, whole_body

Endpoint = Callable[[Request], Awaitable[Response]]

B = TypeVar("B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The endpoints of one agent."""

    desk: Desk
    node: NodeId
    """Whose agent this is."""
    capabilities: Capabilities
    access: Access
    events: Sink

    def changes(self) -> dict[str, Endpoint]:
        return {
            "/switchover": self.switchover,
            "/failover": self.failover,
            "/pause": self.pause,
            "/resume": self.resume,
            "/durability/set": self.set_policy,
            "/durability/reset": self.reset_policy,
            "/diverged/dismiss": self.dismiss,
            "/reinit": self.reinit,
            "/restart": self.restart,
        }

    def reads(self) -> dict[str, Endpoint]:
        return {"/diverged/show": self.diverged_text}

    # ---- who is primary

    async def switchover(self, request: Request) -> Response:
        body = await self._body(request, SwitchoverBody)
        outcome = await requests.switchover(self.desk, to=body.to, timeout_s=body.timeout_s)
        return as_response(done_answer(outcome))

    async def failover(self, request: Request) -> Response:
        body = await self._body(request, FailoverBody)
        outcome = await requests.failover(
            self.desk,
            nodes=body.nodes,
            is_loss_accepted=body.accept_loss,
            timeout_s=body.timeout_s,
        )
        return as_response(done_answer(outcome))

    async def pause(self, request: Request) -> Response:
        body = await self._body(request, PauseBody)
        detail = await requests.pause(self.desk, reason=body.reason)
        return as_response(DoneAnswer(is_done=True, detail=detail))

    async def resume(self, request: Request) -> Response:
        await self._body(request, ResumeBody)
        return as_response(DoneAnswer(is_done=True, detail=await requests.resume(self.desk)))

    # ---- what counts as written

    async def set_policy(self, request: Request) -> Response:
        body = await self._body(request, DurabilityBody)
        wish = Wish(
            acks=body.acks,
            on_timeout=body.on_timeout,
            timeout_s=body.timeout_s,
            degrade_failover=body.degrade_failover,
        )
        return as_response(
            await durability.set_policy(self.desk, wish, self.capabilities, within_s=body.within_s)
        )

    async def reset_policy(self, request: Request) -> Response:
        body = await self._body(request, DurabilityResetBody)
        return as_response(await durability.reset_policy(self.desk, within_s=body.within_s))

    # ---- what lost its place

    async def diverged_text(self, request: Request) -> Response:
        self._admit(request)
        ident = request.query_params.get("id", "")
        if not ident:
            raise Rejected("no id is given", hint="Say ?id=..., as /diverged lists them.")
        facts = await diverged.find_diverged(self.desk.store, ident)
        return as_response(await asyncio.to_thread(diverged.read_text, facts))

    async def dismiss(self, request: Request) -> Response:
        body = await self._body(request, DismissBody)
        return as_response(await diverged.dismiss(self.desk, body.id))

    # ---- one node, or all in turn

    async def reinit(self, request: Request) -> Response:
        body = await self._body(request, ReinitBody)
        outcome = await tasks.reinit(
            self.desk, body.node, is_data_given_up=body.give_up_data, timeout_s=body.timeout_s
        )
        return as_response(done_answer(outcome))

    async def restart(self, request: Request) -> Response:
        """An agent that is itself restarted could not tell how it ended."""
        body = await self._body(request, RestartBody)
        only = None if body.node is None else self.desk.roster.node(body.node)
        if body.agents and only in (None, self.node):
            raise Rejected(
                f"the agent of {self.node}, which is asked, would be restarted on the way",
                hint="Restart agents through the store (leave --api away), or one by one, each"
                " through the agent of another node.",
            )
        progress = Progress()
        try:
            await rolling.restart(
                self.desk,
                parts=rolling.parts_of(databases=body.databases, agents=body.agents),
                only=only,
                progress=progress,
                timeout_s=body.timeout_s,
            )
        except PrimacyError as error:
            if progress.done:
                names = ", ".join(each.node for each in progress.done)
                error.hint += f" Restarted before it ended: {names}."
            raise
        return as_response(progress.answer(is_done=True, detail=ALL_WELL))

    # ---- who asks

    def _admit(self, request: Request) -> None:
        """Raises `Refused`, and notes it."""
        headers = request.headers
        refusal = self.access.refusal(headers.get("authorization"), headers.get("host"))
        if refusal is not None:
            status, error, hint = refusal
            self.events(Event("api-refused", {"path": path_of(request), "reason": error}))
            raise Refused(status, error, hint)

    async def _body(self, request: Request, kind: type[B]) -> B:
        """The body of somebody who may ask for changes."""
        self._admit(request)
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != JSON:
            # A page in somebody's browser can send other kinds to loopback, and not this one.
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON",
                f"Send the header Content-Type: {JSON}, and {{}} where there is nothing to say.",
            )
        try:
            return msgspec.json.decode(await whole_body(request), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Rejected(f"the body cannot be used: {error}", hint="See /openapi.json.") from None
