"""What a request may carry, as types: they check, and the OpenAPI document is made from them."""

from typing import Annotated

import msgspec

from primacy.cluster.control import durability, tasks
from primacy.cluster.control.durability import DegradeFailover, OnTimeout
from primacy.cluster.control.requests import FAILOVER_WITHIN_S, SWITCHOVER_WITHIN_S
from primacy.cluster.policy import AcksWord

NAME_MAX = 32
"""A node's name, as the configuration has it."""
IDENT_MAX = 100
"""Of something diverged."""

TIMEOUT_MIN_S = 1.0
TIMEOUT_MAX_S = 600.0
COPY_TIMEOUT_MAX_S = 86400.0

NodeName = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX)]
Ident = Annotated[str, msgspec.Meta(min_length=1, max_length=IDENT_MAX)]
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


Awaited = Annotated[
    float,
    msgspec.Meta(
        ge=TIMEOUT_MIN_S,
        le=TIMEOUT_MAX_S,
        description="Seconds to wait until it is in force; it stays recorded after them.",
    ),
]


class DurabilityBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another durability policy for the running cluster. Null: as it is."""

    acks: Annotated[int, msgspec.Meta(ge=0, le=16)] | AcksWord | None = None
    on_timeout: OnTimeout | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=durability.TIMEOUT_MAX_S)] | None = None
    degrade_failover: DegradeFailover | None = None
    within_s: Awaited = durability.WITHIN_S


class DurabilityResetBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration's policy again."""

    within_s: Awaited = durability.WITHIN_S


class DismissBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody has seen to what diverged."""

    id: Annotated[Ident | None, msgspec.Meta(description="Null: all of them.")] = None


class ReinitBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new copy of the primary's data for one node."""

    node: NodeName
    give_up_data: Annotated[
        bool, msgspec.Meta(description="True: its present data is not needed any more.")
    ]
    timeout_s: Annotated[
        float,
        msgspec.Meta(
            ge=TIMEOUT_MIN_S,
            le=COPY_TIMEOUT_MAX_S,
            description="Seconds to wait for the copy; then the request is withdrawn.",
        ),
    ] = tasks.REINIT_WITHIN_S


class RestartBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Restart one node, or all of them one at a time."""

    node: Annotated[
        NodeName | None,
        msgspec.Meta(description="Null: all, replicas first, the primary last."),
    ] = None
    databases: bool = False
    agents: Annotated[
        bool,
        msgspec.Meta(description="Only of a named node, and not of the one that is asked."),
    ] = False
    timeout_s: Annotated[
        float,
        msgspec.Meta(
            ge=TIMEOUT_MIN_S,
            le=TIMEOUT_MAX_S,
            description="Seconds for each step of each node.",
        ),
    ] = tasks.RESTART_WITHIN_S
