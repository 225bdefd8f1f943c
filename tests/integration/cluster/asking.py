"""One request to one agent of a live cluster, over HTTP."""

import json
import urllib.error
import urllib.request
from typing import Any  # JSON.

from tests.integration.cluster.conftest import Live

from primacy.model import NodeId

ASKED_WITHIN_S = 60


def asked(
    live: Live, node: NodeId, path: str, *, body: object = None, token: str | None = None
) -> tuple[int, Any]:  # JSON.
    """Status and JSON of one agent's answer."""
    request = urllib.request.Request(f"http://{live.cluster.nodes[node].address('api_port')}{path}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=ASKED_WITHIN_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
