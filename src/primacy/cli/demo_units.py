"""Nodes on this machine as their service units run them, without a service manager.

The unit files are written as `primacy service install` writes them, and their ExecStart lines are
run. What a service manager would end with the agent's unit, its process tree, is ended with it.
"""

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import primacy
from primacy.cli.demo_nodes import GONE_WITHIN_S, LocalCluster
from primacy.cli.units import Placed, agent_unit, guard_unit
from primacy.errors import Unavailable
from primacy.model import NodeId
from primacy.runtime.processes import ProcessName, family, process_start_time


class UnitCluster(LocalCluster):
    """Start it as a `LocalCluster`. An agent is then stopped and upgraded as its unit would be."""

    sources = Path(primacy.__file__).resolve().parents[1]
    """Where agents that are started from now on come from."""

    @cached_property
    def _launchers(self) -> "dict[NodeId, subprocess.Popen[bytes]]":
        return {}

    def placed(self, node: NodeId) -> Placed:
        return Placed(
            cluster="test",
            node=node,
            python=Path(sys.executable),
            sources=self.sources,
            config=self.config_of(node),
            state_dir=self.nodes[node].state_dir,
        )

    def start(self, node: NodeId) -> None:
        """Both units; a launcher that runs already is left alone."""
        self._reap(node)
        self.nodes[node].state_dir.mkdir(parents=True, exist_ok=True)
        if node not in self._launchers:
            self._launchers[node] = self._run(node, guard_unit(self.placed(node), ()))
        self._agents[node] = self._run(node, agent_unit(self.placed(node), ()))

    def _run(self, node: NodeId, unit: str) -> "subprocess.Popen[bytes]":
        """The unit's ExecStart, in its environment and no other."""
        parsed = configparser.ConfigParser(interpolation=None)
        parsed.read_string(unit)
        (setting,) = shlex.split(parsed["Service"]["Environment"])
        name, _, value = setting.partition("=")
        with self.nodes[node].log.open("ab") as log:
            return subprocess.Popen(
                shlex.split(parsed["Service"]["ExecStart"]),
                env={name: value, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def tree(self, node: NodeId) -> list[ProcessName]:
        """What runs in the agent's unit: the agent and whatever descends from it."""
        pid = self._agents[node].pid
        return family(ProcessName(pid, process_start_time(pid) or 0))

    def stop_agent(self, node: NodeId) -> None:
        """As KillMode=mixed does: SIGTERM to the agent, then SIGKILL to what its unit still has."""
        tree = self.tree(node)
        self._agents[node].terminate()
        try:
            self._agents[node].wait(GONE_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"the agent of {node} does not end", hint="See its log.") from error
        for name in tree:
            if process_start_time(name.pid) == name.started:
                os.kill(name.pid, signal.SIGKILL)

    def upgrade(self) -> None:
        """Install the program anew, at another place: agents started later come from there."""
        target = self.root / "upgraded"
        shutil.copytree(self.sources / "primacy", target / "primacy")
        self.sources = target

    async def stop_all(self) -> None:
        for launcher in self._launchers.values():
            launcher.terminate()
        await super().stop_all()
        for launcher in self._launchers.values():
            launcher.wait(GONE_WITHIN_S)
