"""What each request of the agent means: one call of the server's parts.

Promises  Every request ends in a reply. What does not fit the moment is a `Conflict`, and nothing
          was done. Whoever asked may go: what was begun comes to its end.
"""

import asyncio
import threading
from pathlib import Path
from typing import TypeAlias, assert_never

import apsw

from primacy.engines.sqlite import control as ask
from primacy.engines.sqlite.control import (
    Copied,
    Done,
    ErrorBranch,
    Failed,
    Reply,
    Request,
    RoleNow,
    Sum,
    Sums,
    failed,
)
from primacy.engines.sqlite.server.roles import Roles
from primacy.engines.sqlite.server.showing import Showing
from primacy.engines.sqlite.server.spec import Spec
from primacy.engines.sqlite.storage.copying import copy_database
from primacy.engines.sqlite.storage.sums import table_sums
from primacy.errors import Conflict, PrimacyError, Rejected
from primacy.model import Address, NodeId
from primacy.replication.log.record import VERSION
from primacy.replication.pull.acks import Requirement
from primacy.replication.pull.receiver import Following

_OfReign: TypeAlias = (
    ask.Reign
    | ask.Demote
    | ask.SetAcks
    | ask.OpenDoors
    | ask.CloseDoors
    | ask.Marker
    | ask.Beat
    | ask.Exclude
    | ask.Admit
)


class Obeying:
    """Owned by the event loop."""

    def __init__(self, spec: Spec, roles: Roles, showing: Showing, *, secret: bytes | None) -> None:
        """`secret` None: there is no door for replicas, and nobody is followed."""
        self._spec = spec
        self._roles = roles
        self._showing = showing
        self._secret = secret
        self._copies: dict[str, threading.Event] = {}
        """Those that are being made; set: it is not wanted any more."""

    async def answer(self, request: Request) -> Reply:
        try:
            return await self._done(request)
        except PrimacyError as error:
            return failed(error)
        except (OSError, apsw.Error) as error:
            what = f"the system refused: {type(error).__name__}: {error}"
            return Failed(ErrorBranch.UNAVAILABLE, what, "Look at the disk: space, errors.")

    async def _done(self, request: Request) -> Reply:
        match request:
            case ask.Observe():
                return self._showing.shown()
            case ask.Snapshot():
                return await self._snapshot(request)
            case ask.Release():
                return await self._release(request.name)
            case ask.TableSums():
                return await self._sums(request)
            case ask.Follow():
                return await self._follow(request)
            case ask.Acknowledge():
                self._roles.acknowledge(wanted=request.wanted)
                return Done()
            case ask.Rest() | ask.Drain() | ask.Cut() | ask.Rewind():
                return await self._move(request)
            case _:
                return await self._lead(request)

    # ---- the log ---------------------------------------------------------------------------

    async def _move(self, request: ask.Rest | ask.Drain | ask.Cut | ask.Rewind) -> Done:
        roles = self._roles
        match request:
            case ask.Rest():
                return Done((await roles.rest()).index)
            case ask.Drain():
                return Done((await roles.drain(within_s=request.within_s)).index)
            case ask.Cut():
                return Done((await roles.cut(request.after)).index)
            case ask.Rewind():
                return Done((await roles.rewind(request.to)).index)
            case _:
                assert_never(request)

    async def _follow(self, request: ask.Follow) -> Done:
        if self._secret is None:
            raise Rejected(
                "this server has no door for replicas, and so no secret of the cluster",
                hint="Give the server a pull address.",
            )
        following = Following(
            cluster=self._spec.cluster,
            secret=self._secret,
            node=NodeId(self._spec.node),
            incarnation=request.incarnation,
            epoch=request.epoch,
            upstream=request.upstream,
            log_version=VERSION,
        )
        await self._roles.follow(
            following,
            address_in(request.upstream_door),
            leader=request.leader_door,
            acknowledge=request.acknowledge,
            apply_until=request.apply_until,
        )
        return Done()

    # ---- a reign ---------------------------------------------------------------------------

    async def _lead(self, request: _OfReign) -> Done:
        roles = self._roles
        match request:
            case ask.Reign():
                return Done(await roles.reign(request.epoch))
            case ask.Demote():
                await roles.demote(request.index)
            case ask.OpenDoors():
                roles.lead().open_doors()
            case ask.CloseDoors():
                return Done(await roles.lead().close_doors(within_s=request.within_s))
            case ask.Marker():
                return Done(await roles.lead().marker())
            case ask.Beat():
                return Done(await roles.lead().beat())
            case _:
                self._count(request)
        return Done()

    def _count(self, request: ask.SetAcks | ask.Exclude | ask.Admit) -> None:
        """Who counts, and how many of them."""
        reigning = self._roles.lead()
        match request:
            case ask.SetAcks(acks=acks, ack_on=ack_on):
                if acks < 0:
                    raise Rejected(f"acks = {acks}: not below 0", hint="Ask for 0 or more.")
                asked = Requirement(acks=acks, ack_on=ack_on)
                reigning.require(asked, may_release=request.may_release)
            case ask.Exclude():
                reigning.exclude(request.node)
            case ask.Admit():
                reigning.admit(request.node)
            case _:
                assert_never(request)

    # ---- copies and comparisons ------------------------------------------------------------

    async def _snapshot(self, request: ask.Snapshot) -> Copied:
        into = Path(request.path)
        if into.name != request.name or not into.is_absolute():
            raise Rejected(
                f"the copy {request.name!r} cannot be made at {request.path!r}",
                hint="Give a whole path whose last part is the name.",
            )
        if self._roles.now is RoleNow.RESTING:
            raise Conflict(
                f"{self._spec.node} rests: nobody knows whose history its data is",
                hint="Ask the primary, or a replica that follows.",
            )
        if request.name in self._copies:
            raise Conflict(f"the copy {request.name} is being made", hint="Wait, or release it.")
        self._copies[request.name] = stop = threading.Event()

        def copy() -> Copied:
            made = copy_database(
                self._roles.log,
                self._spec.storage,
                database_path=self._spec.database_path,
                into=into,
                bytes_per_s=request.bytes_per_s,
                stop=stop,
            )
            return Copied(point=made.point, gtids=made.gtids, size_bytes=made.size_bytes)

        try:
            return await asyncio.to_thread(copy)
        finally:
            del self._copies[request.name]

    async def _release(self, name: str) -> Done:
        stop = self._copies.get(name)
        if stop is not None:
            stop.set()
        if name in self._roles.log.holds:
            await asyncio.to_thread(self._roles.log.release, name)
        return Done()

    def give_up_copies(self) -> None:
        """The server stops."""
        for stop in self._copies.values():
            stop.set()

    async def _sums(self, request: ask.TableSums) -> Sums:
        path, settings = self._spec.database_path, self._spec.storage
        found = await asyncio.to_thread(table_sums, path, settings, request.tables)
        if request.at and found.point.index != request.at:
            raise Conflict(
                f"{found.point.index} is applied, the sums of {request.at} are asked for",
                hint="Follow with a limit, and wait until it is reached.",
            )
        sums = tuple(
            Sum(table=each.table, rows=each.rows, digest=each.digest) for each in found.sums
        )
        return Sums(point=found.point, sums=sums)


def address_in(text: str) -> Address:
    """Of HOST:PORT, where HOST may stand in brackets."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Rejected(f"{text!r} is not HOST:PORT", hint="Name the upstream's door for replicas.")
    return Address(host, int(port))
