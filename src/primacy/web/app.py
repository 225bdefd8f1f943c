"""The routes: HTTP in, `cluster.control` and `health` called, HTTP out. An ASGI application.

    GET   /status /history /decisions            what the store says
          /durability /diverged
    POST  /switchover /failover /pause /resume   what an operator asks for (token): `asking`
          /durability/set /durability/reset /diverged/dismiss /reinit /restart
    GET   /diverged/show                         the same (token)
    GET   /primary /replica?lag= ...             for load balancers, also HEAD and OPTIONS
    GET   /metrics                               for Prometheus
    GET   /openapi.json                          all of this, for programs

Status  200 done; 202 taken up, its end was not seen; 400 wrong; 401 and 403 not allowed;
        404 nothing of that name; 408, 413 and 415 no body of ours; 409 refused by the cluster, or
        not in time and withdrawn; 503 not now (a health check: no).
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from primacy.cluster.control import diverged, durability
from primacy.cluster.control.answers import Problem
from primacy.cluster.control.past import (
    decisions_answer,
    history_answer,
    read_decisions,
    read_history,
)
from primacy.cluster.control.picture import answer_of
from primacy.cluster.control.reading import read_picture
from primacy.cluster.control.requests import Desk
from primacy.coordination.api import Store
from primacy.engines.api import Capabilities
from primacy.errors import PrimacyError
from primacy.model import NodeId
from primacy.telemetry import Event, Sink
from primacy.web import metrics
from primacy.web.access import Access
from primacy.web.asking import Asking, Endpoint
from primacy.web.exchange import (
    JSON,
    as_response,
    count_of,
    lag_of,
    mode_of,
    of_error,
    of_http_error,
    path_of,
)
from primacy.web.health import PATHS, Check, judged
from primacy.web.looking import Look
from primacy.web.openapi import (
    DECISIONS_DEFAULT,
    DECISIONS_MAX,
    HISTORY_DEFAULT,
    HISTORY_MAX,
    document,
)

METRICS_KEPT_S = 0.25
"""Far shorter than anybody's scrape interval."""

CHECK_METHODS = ("GET", "HEAD", "OPTIONS")


class Api:
    """The endpoints of one agent."""

    def __init__(
        self,
        *,
        desk: Desk,
        singles: Mapping[NodeId, Store],
        look: Look,
        capabilities: Capabilities,
        access: Access,
        events: Sink,
    ) -> None:
        """`singles`: a store of each member alone, for its own view."""
        self._desk = desk
        self._singles = singles
        self._look = look
        self._asking = Asking(
            desk=desk, node=look.node, capabilities=capabilities, access=access, events=events
        )
        self._events = events
        self._document = msgspec.json.encode(document())
        self._metrics = b""
        self._metrics_until_s = float("-inf")

    def application(self) -> Starlette:
        application = Starlette(
            routes=[
                Route(path, endpoint, methods=list(methods))
                for path, (methods, endpoint) in self.routes().items()
            ],
            exception_handlers={
                PrimacyError: of_error,
                HTTPException: of_http_error,
                Exception: self._of_bug,
            },
        )
        application.router.redirect_slashes = False  # A redirect would go where Host says.
        return application

    def routes(self) -> dict[str, tuple[Sequence[str], Endpoint]]:
        """Path -> methods, and what answers them."""
        reads: dict[str, Endpoint] = {
            "/status": self.status,
            "/history": self.history,
            "/decisions": self.decisions,
            "/durability": self.policy,
            "/diverged": self.diverged,
            **self._asking.reads(),
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
        }
        changes = self._asking.changes()
        return {
            **dict.fromkeys(PATHS, (CHECK_METHODS, self.health)),
            **{path: (("GET",), endpoint) for path, endpoint in reads.items()},
            **{path: (("POST",), endpoint) for path, endpoint in changes.items()},
        }

    # ---- for load balancers and monitors

    async def health(self, request: Request) -> Response:
        check = PATHS[path_of(request)]
        lag = lag_of(request)
        mode = mode_of(request)
        needs_member = check is Check.LIVENESS and self._look.is_witness
        facts = await self._look.facts_with_member() if needs_member else self._look.facts()
        verdict = judged(check, facts, lag=lag, mode=mode)
        status = HTTPStatus.OK if verdict.is_ok else HTTPStatus.SERVICE_UNAVAILABLE
        if request.method != "GET":
            return Response(status_code=status)
        return as_response(verdict, status)

    async def metrics(self, _request: Request) -> Response:
        """Made anew at most every METRICS_KEPT_S: it takes the interpreter for milliseconds."""
        now_s = self._desk.clock.now_s()
        if now_s >= self._metrics_until_s:
            self._metrics_until_s = now_s + METRICS_KEPT_S
            self._metrics = metrics.exposition(await self._look.facts_with_member())
        return Response(self._metrics, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def openapi(self, _request: Request) -> Response:
        return Response(self._document, media_type=JSON)

    # ---- what there is

    async def status(self, _request: Request) -> Response:
        desk = self._desk
        picture = await read_picture(desk.roster, desk.store, self._singles, clock=desk.clock)
        return as_response(answer_of(picture))

    async def history(self, request: Request) -> Response:
        limit = count_of(request, "limit", default=HISTORY_DEFAULT, most=HISTORY_MAX)
        return as_response(history_answer(await read_history(self._desk.store, limit=limit)))

    async def decisions(self, request: Request) -> Response:
        last = count_of(request, "last", default=DECISIONS_DEFAULT, most=DECISIONS_MAX)
        node = request.query_params.get("node")
        desk = self._desk
        return as_response(
            decisions_answer(await read_decisions(desk.store, desk.roster, last=last, node=node))
        )

    async def policy(self, _request: Request) -> Response:
        return as_response(await durability.show(self._desk))

    async def diverged(self, _request: Request) -> Response:
        return as_response(await diverged.list_diverged(self._desk.store))

    def _of_bug(self, request: Request, error: Exception) -> Response:
        self._events(Event("api-failed", {"path": path_of(request), "reason": repr(error)}))
        problem = Problem(
            error=f"this is a bug in primacy: {type(error).__name__}: {error}",
            hint="The agent's log has an api-failed event for it.",
        )
        return as_response(problem, HTTPStatus.INTERNAL_SERVER_ERROR)
