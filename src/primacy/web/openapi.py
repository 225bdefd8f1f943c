"""The OpenAPI document, made from the types that check requests and make answers. Pure.

`docs/openapi.json` is this document, committed; a test compares the two.
"""

from collections.abc import Mapping

import msgspec

from primacy.cluster.control.answers import (
    ClusterAnswer,
    DecisionsAnswer,
    DivergedListAnswer,
    DivergedTextAnswer,
    DoneAnswer,
    HistoryAnswer,
    PolicyAnswer,
    Problem,
    RestartAnswer,
)
from primacy.cluster.control.wording import Json
from primacy.web.bodies import (
    IDENT_MAX,
    NAME_MAX,
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
from primacy.web.health import PATHS, Check, HealthAnswer

VERSION = "1"
"""Of the API: it grows with a change that an older client cannot bear."""

HISTORY_DEFAULT, HISTORY_MAX = 20, 1000
DECISIONS_DEFAULT, DECISIONS_MAX = 1, 200

Tree = dict[str, Json]

_TYPES: tuple[type[msgspec.Struct], ...] = (
    ClusterAnswer,
    DecisionsAnswer,
    DismissBody,
    DivergedListAnswer,
    DivergedTextAnswer,
    DoneAnswer,
    DurabilityBody,
    DurabilityResetBody,
    FailoverBody,
    HealthAnswer,
    HistoryAnswer,
    PauseBody,
    PolicyAnswer,
    Problem,
    ReinitBody,
    RestartAnswer,
    RestartBody,
    ResumeBody,
    SwitchoverBody,
)

LAG: Tree = {
    "name": "lag",
    "in": "query",
    "description": "How far behind a replica may be: 1048576 or 10MB (bytes, counted as one"
    " transaction for each KiB), 100tx (transactions), 5s or 500ms (age of the newest heartbeat).",
    "schema": {"type": "string", "pattern": r"^[0-9]{1,9} ?([kKmM]?[bB]|tx|ms|s|min)?$"},
    "example": "100tx",
}
MODE: Tree = {
    "name": "mode",
    "in": "query",
    "description": "Whether a transaction counts once it is applied, or once it is received.",
    "schema": {"type": "string", "enum": ["apply", "write"]},
}
REFUSALS = {
    "202": "Taken up; its end was not seen. Read the history.",
    "400": "Wrong, and can never be done as it stands.",
    "401": "The token is missing or wrong.",
    "403": "No token is configured, and the door is open beyond loopback.",
    "404": "There is nothing of that name.",
    "408": "The body did not arrive.",
    "409": "The cluster refused, or did not do it in time: then it is withdrawn.",
    "413": "The body is too long.",
    "415": "The body is not JSON.",
    "503": "Not now: the store has no majority, a node does not answer or does not heal.",
}
HEALTH_ANSWERS = {"200": "yes", "503": "no", "400": "unclear"}
SILENT_ANSWERS = {"200": "silentYes", "503": "silentNo", "400": "silentUnclear"}
LAGGING = (Check.REPLICA, Check.READ_ONLY, Check.SYNC, Check.ASYNC, Check.READINESS)


def document() -> Tree:
    paths: Tree = {path: _health(path, check) for path, check in PATHS.items()}
    paths |= {
        "/status": _read("status", "Every node as the store shows it.", ClusterAnswer),
        "/history": _read(
            "history",
            "How each epoch came about, the newest last.",
            HistoryAnswer,
            _number("limit", "The newest epochs only.", HISTORY_DEFAULT, HISTORY_MAX),
        ),
        "/decisions": _read(
            "decisions",
            "What each node decided last, and why.",
            DecisionsAnswer,
            _number("last", "Decisions of each node.", DECISIONS_DEFAULT, DECISIONS_MAX),
            _node_parameter(),
        ),
        "/durability": _read("policy", "Which replicas must hold a write.", PolicyAnswer),
        "/diverged": _read(
            "diverged", "Transactions that lost their place and were saved.", DivergedListAnswer
        ),
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _own()},
    }
    paths |= _requests()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "primacy: one agent's API",
            "version": VERSION,
            "description": "One primary at a time, and no acknowledged write lost. Health checks"
            " have Patroni's paths and codes. Reading needs no token.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "parameters": {"lag": LAG, "mode": MODE},
            "responses": _responses(),
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _requests() -> Tree:
    """What needs the token."""
    return {
        "/switchover": _change("switchover", "Move the primary to another node.", SwitchoverBody),
        "/failover": _change(
            "failover", "Promote although acknowledged writes may be lost.", FailoverBody
        ),
        "/pause": _change("pause", "No elections and no rejoins; fencing goes on.", PauseBody),
        "/resume": _change("resume", "End a pause.", ResumeBody),
        "/durability/set": _change(
            "set_policy",
            "Another durability policy; answered when it is in force.",
            DurabilityBody,
            PolicyAnswer,
        ),
        "/durability/reset": _change(
            "reset_policy",
            "The configuration's policy again; answered when it is in force.",
            DurabilityResetBody,
            PolicyAnswer,
        ),
        "/diverged/show": _diverged_text(),
        "/diverged/dismiss": _change(
            "dismiss_diverged", "Somebody has seen to it.", DismissBody, DivergedListAnswer
        ),
        "/reinit": _change("reinit", "A new copy of the primary's data for a node.", ReinitBody),
        "/restart": _change(
            "restart", "One node, or all of them one at a time.", RestartBody, RestartAnswer
        ),
    }


def _schemas() -> Tree:
    _, components = msgspec.json.schema_components(
        _TYPES, ref_template="#/components/schemas/{name}"
    )
    made: Tree = components
    return made


def _health(path: str, check: Check) -> Tree:
    name = path.strip("/").replace("-", "_") or "root"
    parameters: list[Json] = []
    if check in LAGGING:
        parameters = [{"$ref": f"#/components/parameters/{name}"} for name in ("lag", "mode")]
    return {
        method: {
            "operationId": f"{method}_{name}",
            "summary": f"Yes or no: {check.value}.",
            "tags": ["health"],
            "parameters": parameters,
            "responses": {
                code: {"$ref": f"#/components/responses/{answer}"}
                for code, answer in (HEALTH_ANSWERS if method == "get" else SILENT_ANSWERS).items()
            },
        }
        for method in ("get", "head", "options")
    }


def _responses() -> Tree:
    """Those that many operations share."""
    return {
        "yes": _said("Yes.", HealthAnswer),
        "no": _said("No, and why.", HealthAnswer),
        "unclear": _said("The question cannot be understood.", Problem),
        "silentYes": {"description": "Yes."},
        "silentNo": {"description": "No."},
        "silentUnclear": {"description": "The question cannot be understood."},
        **{f"refused{code}": _said(text, Problem) for code, text in REFUSALS.items()},
    }


def _read(name: str, summary: str, kind: type[msgspec.Struct], *parameters: Tree) -> Tree:
    answers: Tree = {
        "200": _said("What there is.", kind),
        "503": {"$ref": "#/components/responses/refused503"},
    }
    if parameters:
        answers["400"] = {"$ref": "#/components/responses/unclear"}
    if name == "decisions":
        answers["404"] = {"$ref": "#/components/responses/refused404"}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "tags": ["cluster"],
            "parameters": list(parameters),
            "responses": answers,
        }
    }


def _diverged_text() -> Tree:
    """A read that shows rows: it needs the token, and the node that has the file."""
    ident: Tree = {
        "name": "id",
        "in": "query",
        "required": True,
        "description": "As /diverged lists it.",
        "schema": {"type": "string", "minLength": 1, "maxLength": IDENT_MAX},
    }
    refused = {
        code: {"$ref": f"#/components/responses/refused{code}"}
        for code in ("400", "401", "403", "404", "503")
    }
    return {
        "get": {
            "operationId": "diverged_text",
            "summary": "What diverged transactions changed; asked of the node that saved them.",
            "tags": ["cluster"],
            "security": [{"token": []}],
            "parameters": [ident],
            "responses": {"200": _said("With its statements.", DivergedTextAnswer), **refused},
        }
    }


def _change(
    name: str,
    summary: str,
    body: type[msgspec.Struct],
    answer: type[msgspec.Struct] = DoneAnswer,
) -> Tree:
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "tags": ["requests"],
            "security": [{"token": []}],
            "requestBody": {"required": True, "content": _content(body)},
            "responses": {
                "200": _said("Done.", answer),
                **{code: {"$ref": f"#/components/responses/refused{code}"} for code in REFUSALS},
            },
        }
    }


def _metrics() -> Tree:
    return {
        "operationId": "metrics",
        "summary": "For Prometheus.",
        "tags": ["metrics"],
        "responses": {
            "200": {
                "description": "The text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    }


def _own() -> Tree:
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "tags": ["cluster"],
        "responses": {
            "200": {
                "description": "OpenAPI 3.1.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            }
        },
    }


def _said(text: str, kind: type[msgspec.Struct]) -> Tree:
    return {"description": text, "content": _content(kind)}


def _content(kind: type[msgspec.Struct]) -> Tree:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


def _number(name: str, text: str, default: int, most: int) -> Tree:
    schema: Mapping[str, Json] = {
        "type": "integer",
        "minimum": 1,
        "maximum": most,
        "default": default,
    }
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _node_parameter() -> Tree:
    return {
        "name": "node",
        "in": "query",
        "description": "Only this node.",
        "schema": {"type": "string", "minLength": 1, "maxLength": NAME_MAX},
    }
