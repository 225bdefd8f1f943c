"""The OpenAPI document: committed as it is served, and about the routes that there are."""

import json
import os
from pathlib import Path

import msgspec

from primacy.clock import SystemClock
from primacy.cluster.control.requests import Desk
from primacy.cluster.control.roster import Roster
from primacy.cluster.showing import Window
from primacy.config import ENGINES
from primacy.coordination.memory import MemoryStore
from primacy.model import NodeId
from primacy.telemetry import ignore
from primacy.web.access import Access
from primacy.web.app import Api
from primacy.web.facts import ProcessFacts
from primacy.web.looking import Look, Node
from primacy.web.openapi import document

COMMITTED = Path(__file__).parents[3] / "docs/openapi.json"


def test_golden_the_committed_document_is_the_one_that_is_served() -> None:
    text = msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"
    if os.environ.get("REWRITE"):
        COMMITTED.write_text(text)
    assert COMMITTED.read_text() == text, "`make golden` writes it again"


def test_it_names_every_route_with_its_methods_and_no_other() -> None:
    clock, store, node = SystemClock(), MemoryStore(SystemClock()), NodeId("a")
    look = Look(
        Node(
            cluster="shop",
            name=node,
            is_witness=True,
            lease_ttl_s=3.0,
            status_stale_after_s=3.0,
            page=None,
        ),
        window=Window(),
        count=ProcessFacts,
        member=store,
        clock=clock,
    )
    api = Api(
        desk=Desk(store, Roster(cluster="shop", members=(node,), data_nodes=()), clock),
        singles={node: store},
        look=look,
        capabilities=ENGINES["mariadb"],
        access=Access(None, is_loopback=True),
        events=ignore,
    )
    served = {(path, method) for path, (methods, _) in api.routes().items() for method in methods}
    paths = json.loads(COMMITTED.read_text())["paths"]
    described = {(path, method.upper()) for path in paths for method in paths[path]}
    assert described == served


def test_every_reference_leads_somewhere() -> None:
    text = COMMITTED.read_text()
    schemas = json.loads(text)["components"]["schemas"]
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in schemas
