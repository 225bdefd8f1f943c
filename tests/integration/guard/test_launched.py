"""A guard that the launcher starts: the agent commands it as ever, and its unit ends it."""

from pathlib import Path

import pytest
from tests.integration.guard.test_guarding import in_s, run
from tests.integration.runtime.test_launcher import launcher

from primacy.engines.guardchild import GuardSpec
from primacy.engines.guarding import attach, start_guard
from primacy.errors import Rejected
from primacy.model import Epoch
from primacy.runtime.page import PageReader, PageState
from primacy.runtime.processes import children, family

pytestmark = pytest.mark.integration


def test_it_is_a_child_of_the_launcher_and_obeys_the_agent(
    stubborn_spec: GuardSpec, tmp_path: Path
) -> None:
    path = tmp_path / "launcher.sock"

    async def scenario(launcher_pid: int) -> None:
        guarded = await start_guard(stubborn_spec, launcher=path)
        assert guarded.guard.name in children(launcher_pid)
        await guarded.arm(Epoch(1), in_s(60))
        guarded.detach()  # The agent's unit is stopped,
        again = await attach(stubborn_spec.status_path.parent)  # and started.
        assert again is not None
        assert (await again.status()).state == "armed"
        await again.kill()
        assert family(again.database.name) == []
        again.detach()

    with launcher(path) as process:
        run(scenario(process.pid))


def test_the_end_of_the_launcher_s_unit_closes_the_page_and_ends_the_database(
    stubborn_spec: GuardSpec, tmp_path: Path
) -> None:
    path = tmp_path / "launcher.sock"

    async def scenario() -> None:
        guarded = await start_guard(stubborn_spec, launcher=path)
        await guarded.arm(Epoch(1), in_s(60))
        await guarded.open(Epoch(1))
        process.terminate()
        await guarded.gone()
        assert PageReader(guarded.page_path).read().state is PageState.CLOSED
        assert family(guarded.database.name) == []
        guarded.detach()

    with launcher(path) as process:
        run(scenario())


def test_a_guard_that_cannot_start_says_so_through_the_launcher(
    stubborn_spec: GuardSpec, tmp_path: Path
) -> None:
    path = tmp_path / "launcher.sock"
    spec = GuardSpec(
        argv=("/no/such/server",),
        page_path=stubborn_spec.page_path,
        socket_path=stubborn_spec.socket_path,
        status_path=stubborn_spec.status_path,
        log_path=stubborn_spec.log_path,
    )

    async def scenario() -> None:
        with pytest.raises(Rejected, match="cannot execute"):
            await start_guard(spec, launcher=path)

    with launcher(path):
        run(scenario())
