"""Which role this node's database has now, for whoever acts on a change of it. Pure."""

from dataclasses import dataclass
from typing import Literal

from primacy.cluster.view import View
from primacy.engines.api import ServerState
from primacy.model import Epoch, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSeen:
    role: Literal["primary", "replica", "none"]
    """`none`: neither yet, or not any more: the server is down, or between two roles."""
    epoch: Epoch
    """In which it has it."""
    primary: NodeId | None
    """Who leads that epoch."""


def role_of(view: View) -> RoleSeen:
    """Primary once the doors are open; replica once it follows the primary of the present epoch."""
    record = view.store.primary
    if record is None:
        return RoleSeen(role="none", epoch=view.store.epoch, primary=None)
    is_running = view.engine.state is ServerState.RUNNING
    is_open = view.page.state == "open" and view.page.epoch == record.epoch
    is_following = (
        view.engine.following_epoch == record.epoch
        and view.engine.replication.upstream == record.node
    )
    if record.node == view.node and is_running and is_open and not view.engine.is_read_only:
        return RoleSeen(role="primary", epoch=record.epoch, primary=record.node)
    if record.node != view.node and is_running and is_following:
        return RoleSeen(role="replica", epoch=record.epoch, primary=record.node)
    return RoleSeen(role="none", epoch=record.epoch, primary=record.node)
