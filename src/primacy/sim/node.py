"""One simulated host: the store member and the agent, the database, its guard, and the router.

The agent with its hands and its plan, Raft and the store are the real ones. The database, the
guard, the page, the router and everything between hosts are models.
"""

from dataclasses import dataclass

from primacy.cluster.agent import Agent
from primacy.cluster.holding import Holding
from primacy.errors import Corrupt, InvariantBroken
from primacy.model import NodeId
from primacy.sim.disk import Disk
from primacy.sim.engine_model import ModelEngine
from primacy.sim.guard_model import Page, SimGuard
from primacy.sim.invariants import Invariants
from primacy.sim.loop import SimClock, SimLoop, new_loop
from primacy.sim.member_host import MemberHost, StoreParts
from primacy.sim.network import STORE_FLOWS, Network
from primacy.sim.settings import Setup
from primacy.sim.store_client import SimStore
from primacy.sim.workload import RouterModel
from primacy.sim.world import NodeClock, World
from primacy.telemetry import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a host is put together from; a planted bug replaces one of these."""

    store: StoreParts
    agent: type[Agent] = Agent
    engine: type[ModelEngine] = ModelEngine
    disk: type[Disk] = Disk
    page: type[Page] = Page
    guard: type[SimGuard] = SimGuard
    holding: type[Holding] = Holding
    client: type[SimStore] = SimStore


LATE_START_S = 2.0
"""After a boot services start in any order: a router may be up this long before its agent."""

RESTART_AFTER_S = 1.0
"""How soon a service manager starts an agent again that stopped by itself."""


class Node:
    """A host across its lives. Hosts without data are witnesses: a member, and nothing else."""

    def __init__(  # noqa: PLR0913  # The parts of a host: each is handed in.
        self,
        name: NodeId,
        world: World,
        network: Network,
        *,
        setup: Setup,
        parts: Parts,
        clock: NodeClock,
        witness: Invariants,
    ) -> None:
        self.name = name
        self.has_data = name in setup.data_nodes
        self.is_up = False
        self.processes = [
            world.process(f"{name}/{what}", name, clock)
            for what in ("agent", "engine", "guard", "router")
        ]
        self.agent_process, self.engine_process = self.processes[:2]
        self.guard_process, self.router_process = self.processes[2:]
        self.page = parts.page()
        self.member = MemberHost(
            name,
            setup.nodes,
            world,
            network,
            process=self.agent_process,
            disk=parts.disk(world, self.agent_process, setup.disk),
            parts=parts.store,
            witness=witness,
        )
        self.engine = parts.engine(
            name,
            world,
            network,
            process=self.engine_process,
            agent=self.agent_process,
            disk=parts.disk(world, self.engine_process, setup.disk),
            witnesses=witness.ledger,
        )
        self.guard = parts.guard(
            world,
            process=self.guard_process,
            agent=self.agent_process,
            engine=self.engine,
            page=self.page,
        )
        self.engine.guard = self.guard
        self.engine.ack_on = setup.ack_on
        self._world = world
        self._network = network
        self._setup = setup
        self._parts = parts
        self._witness = witness
        self._loops: list[SimLoop] = []
        self._has_booted = False
        self.member.disk.on_failure = self._store_disk_failed
        self.router = self._new_router()

    def _new_router(self) -> RouterModel:
        return RouterModel(
            self.name,
            self._world,
            self._network,
            process=self.router_process,
            engine=self.engine,
            page=self.page,
            witness=self._witness,
        )

    def connect(self, nodes: "dict[NodeId, Node]") -> None:
        self.member.peers = {name: node.member for name, node in nodes.items()}
        self.engine.fleet = {name: node.engine for name, node in nodes.items()}

    # ---- lives

    def boot(self) -> None:
        """Power on: the agent starts; it starts the database when its brain says so."""
        self.is_up = True
        if self._has_booted:
            self.agent_process.clock.restart(self._world.now_s)
        self._has_booted = True
        self._world.start(self.router_process)
        chance = self._world.stream(f"boot/{self.name}")
        delay_s = LATE_START_S * chance.random() if chance.random() < 0.5 else 0.0
        self._world.after(delay_s, None, self._restart_agent)

    def crash(self) -> None:
        """Power off: every process at one instant; the page and all unsynced data are gone."""
        self._world.note(self.name, "host-crash")
        self.is_up = False
        self.engine.guard = None
        self.engine.crash()
        self.engine.guard = self.guard
        self._world.kill(self.guard_process)
        self._world.kill(self.router_process)
        self.crash_agent()
        self.page.clear()
        self._network.forget_flows(self.name)

    def start_agent(self) -> None:
        """Refused where the store's disk is damaged: the process ends at once."""
        self._world.start(self.agent_process)
        try:
            self.member.boot()
        except Corrupt as refusal:
            self._world.note(self.name, "store-refused", refusal.what)
            self._world.trace.sometimes("damaged log refused")
            self._world.kill(self.agent_process)
            return
        loop = new_loop(self._world, self.agent_process)
        self._loops.append(loop)
        if self.has_data:
            self._world.after(0.0, self.agent_process, self._run_agent, loop)

    def _store_disk_failed(self, why: str) -> None:
        """The member stops rather than go on, and the agent with it; it is started again."""
        self._world.note(self.name, "store-stops", why)
        self.crash_agent()
        self._world.after(RESTART_AFTER_S, None, self._restart_agent)

    def _restart_agent(self) -> None:
        if self.is_up and not self.agent_process.is_up:
            self.start_agent()

    def crash_agent(self) -> None:
        self._world.kill(self.agent_process)
        self.member.crash()
        self._network.forget_flows(self.name, STORE_FLOWS)

    def abandon(self) -> None:
        for loop in self._loops:
            loop.abandon()

    # ---- the agent

    def _run_agent(self, loop: SimLoop) -> None:
        loop.run_inside(self._assemble)

    def _assemble(self) -> None:
        world, process = self._world, self.agent_process
        loop = self._loops[-1]
        clock = SimClock(world, process)
        store = self._parts.client(
            self.name,
            world,
            self._network,
            self.member.peers,
            process=process,
            history=self._witness.store,
            on_asked=self._witness.on_asked,
            on_watched=self._witness.on_watched,
            patience_s=self._setup.store_patience_s,
        )

        def tell(event: Event) -> None:
            if world.trace.is_on:
                fields = " ".join(f"{key}={value}" for key, value in event.fields.items())
                world.note(self.name, event.name, fields)

        holding = self._parts.holding(
            node=self.name, store=store, engine=self.engine, clock=clock, events=tell
        )
        agent = self._parts.agent(
            node=self.name,
            store=store,
            engine=self.engine,
            holding=holding,
            policy=self._setup.policy,
            clock=clock,
            read_page=self.page.view,
            events=tell,
        )
        task = loop.create_task(agent.run(), name=f"agent-{self.name}")
        task.add_done_callback(lambda done: self._agent_ended(done.exception()))

    def _agent_ended(self, error: BaseException | None) -> None:
        """An agent never ends by itself."""
        if isinstance(error, InvariantBroken):
            self._witness.stop(error)
        else:
            self._witness.fail("agent-goes-on", f"the agent of {self.name} ended: {error!r}")
