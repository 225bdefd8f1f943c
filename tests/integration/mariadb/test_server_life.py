"""A server's life: made, started under its guard, observed, frozen, ended."""

import asyncio
import signal
import stat
import tempfile
from pathlib import Path

import pytest
from tests.integration.mariadb.conftest import A, B, Trio, run

from primacy.engines.api import ServerState
from primacy.engines.directory import MARK_NAME
from primacy.errors import Conflict, Rejected
from primacy.model import ORIGIN, Epoch


def test_an_initialised_server_starts_read_only_and_answers(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            engine = trio[A].engine
            assert (await engine.observe()).state is ServerState.ABSENT
            await engine.initialise()
            made = await engine.observe()
            assert made.state is ServerState.STOPPED
            await engine.start(as_primary=False)
            seen = await engine.observe()
            assert seen.state is ServerState.RUNNING
            assert seen.is_read_only
            assert seen.received == seen.applied == ORIGIN
            assert seen.incarnation == made.incarnation
            assert engine.guardian is not None

    run(story())


def test_a_server_that_starts_deletes_no_temporary_table_of_another(trio: Trio) -> None:
    """It does delete `#sql*` in its own folder: a shared one cost other servers their life."""

    async def story() -> None:
        async with trio:
            trio.make(A)
            own = trio[A].settings.layout.temporary
            with tempfile.NamedTemporaryFile(prefix="#sql-temptable-", suffix=".MAI") as anothers:
                left_over = own / "#sql-temptable-1-2-3.MAI"
                left_over.touch()
                await trio[A].engine.start(as_primary=False)
                assert await trio[A].sql("SELECT @@global.tmpdir AS it") == [{"it": str(own)}]
                assert not left_over.exists()
                assert Path(anothers.name).exists()

    run(story())


def test_no_account_without_a_password_and_no_test_database(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            trio.make(A)
            await trio[A].engine.start(as_primary=False)
            open_accounts = await trio[A].sql(
                "SELECT User, Host FROM mysql.global_priv WHERE User = '' OR"
                " (JSON_VALUE(Priv, '$.authentication_string') = '' AND"
                "  COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) = 0 AND"
                "  JSON_VALUE(Priv, '$.plugin') = 'mysql_native_password')"
            )
            assert open_accounts == []
            assert await trio[A].sql("SHOW DATABASES LIKE 'test'") == []
            secrets = trio[A].settings.layout.secrets
            assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
            for path in secrets.iterdir():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    run(story())


def test_a_foreign_data_directory_is_refused_and_not_touched(trio: Trio) -> None:
    async def story() -> None:
        data = trio[A].settings.layout.data
        data.mkdir(parents=True)
        (data / "ibdata1").write_bytes(b"somebody else's")
        engine = trio[A].engine
        assert (await engine.observe()).state is ServerState.FOREIGN
        with pytest.raises(Rejected):
            await engine.initialise()
        with pytest.raises(Conflict):
            await engine.start(as_primary=False)
        assert [each.name for each in data.iterdir()] == ["ibdata1"]
        assert not (data / MARK_NAME).exists()

    run(story())


def test_the_data_of_another_node_are_foreign(trio: Trio, tmp_path: Path) -> None:
    async def story() -> None:
        trio.make(B)
        trio[B].settings.layout.data.rename(tmp_path / "moved")
        trio[A].settings.layout.root.mkdir(exist_ok=True)
        (tmp_path / "moved").rename(trio[A].settings.layout.data)
        seen = await trio[A].engine.observe()
        assert seen.state is ServerState.FOREIGN
        assert "node b" in seen.detail

    run(story())


def test_a_frozen_server_is_hung_within_the_deadline_and_heals(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.start(A)
            await trio[A].engine.observe()
            trio[A].signal_server(signal.SIGSTOP)
            async with asyncio.timeout(2 * trio[A].settings.timing.health_s):
                seen = await trio[A].engine.observe()
            assert seen.state is ServerState.HUNG
            assert seen.incarnation is not None
            trio[A].signal_server(signal.SIGCONT)
            await trio[A].until(lambda seen: seen.state is ServerState.RUNNING)

    run(story())


def test_a_killed_server_is_stopped_and_starts_again(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.start(A)
            engine = trio[A].engine
            await trio[A].sql("CREATE DATABASE kept")
            trio[A].signal_server(signal.SIGKILL)
            await trio[A].until(lambda seen: seen.state is ServerState.STOPPED)
            assert engine.guardian is None
            await engine.start(as_primary=True)
            assert await trio[A].sql("SHOW DATABASES LIKE 'kept'")
            await engine.stop()
            assert (await engine.observe()).state is ServerState.STOPPED

    run(story())


def test_a_restarted_agent_finds_its_server(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.start(A)
            await trio[A].engine.seal(Epoch(7))
            pid = trio[A].pid
            trio[A].restart_agent()
            assert await trio[A].engine.attach()
            seen = await trio[A].engine.observe()
            assert seen.state is ServerState.RUNNING
            assert seen.sealed_epoch == 7
            assert trio[A].pid == pid

    run(story())


def test_a_server_that_cannot_start_says_why(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            trio.make(A)
            blocker = await asyncio.start_server(
                lambda _r, w: w.close(), "127.0.0.1", trio[A].settings.port
            )
            async with blocker:
                with pytest.raises(Rejected, match="ended while it started"):
                    await trio[A].engine.start(as_primary=False)

    run(story())
