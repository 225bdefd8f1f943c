"""What a request may carry, as types: they check, and the OpenAPI document is made from them."""

from typing import Annotated

import msgspec

from primacy.cluster.control.requests import FAILOVER_WITHIN_S, SWITCHOVER_WITHIN_S

NAME_MAX = 32
"""A node's name, as the configuration has it."""

TIMEOUT_MIN_S = 1.0
TIMEOUT_MAX_S = 600.0

NodeName = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX)]
Timeout = Annotated[
    float,
    msgspec.Meta(
        ge=TIMEOUT_MIN_S,
        le=TIMEOUT_MAX_S,
        description="Seconds to wait for the end; then the request is withdrawn.",
    ),
]


class SwitchoverBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A planned change of primary."""

    to: Annotated[NodeName | None, msgspec.Meta(description="Null: the best replica.")] = None
    timeout_s: Timeout = SWITCHOVER_WITHIN_S


class FailoverBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Promote although acknowledged writes may be only on `nodes`, which are gone for good."""

    nodes: Annotated[list[NodeName], msgspec.Meta(min_length=1, max_length=16)]
    accept_loss: Annotated[
        bool, msgspec.Meta(description="True: what only these nodes hold may be lost.")
    ]
    timeout_s: Timeout = FAILOVER_WITHIN_S


class PauseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No elections and no rejoins until resumed; fencing goes on."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class ResumeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """End a pause."""
