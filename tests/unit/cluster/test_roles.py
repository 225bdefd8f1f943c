"""The role that hooks are told of: only what is finished."""

from dataclasses import replace

import pytest
from tests.unit.cluster.situations import (
    E1,
    E2,
    A,
    B,
    primary,
    record,
    replica,
    seen,
    store,
    vacant,
)

from primacy.cluster.roles import role_of
from primacy.cluster.view import PageView, View
from primacy.engines.api import ServerState

ROLES: dict[str, tuple[View, str]] = {
    "doors open": (primary(), "primary"),
    "doors not open yet": (primary(page=PageView(epoch=E1, state="armed")), "none"),
    "the page of an older epoch": (
        primary(store=store(primary=record(A, E2), epoch=E2)),
        "none",
    ),
    "closed for a switchover": (primary(engine=seen(A)), "none"),
    "follows": (replica(), "replica"),
    "does not follow the new primary yet": (replica(store=store(primary=record(A, E2))), "none"),
    "down": (replica(engine=seen(B, state=ServerState.STOPPED)), "none"),
    "no primary": (vacant(B), "none"),
}


@pytest.mark.parametrize(("view", "role"), ROLES.values(), ids=ROLES)
def test_role(view: View, role: str) -> None:
    assert role_of(view).role == role


def test_it_names_who_leads_and_since_which_epoch() -> None:
    assert (role_of(replica()).primary, role_of(replica()).epoch) == (A, E1)
    assert role_of(replace(vacant(B))).primary is None
