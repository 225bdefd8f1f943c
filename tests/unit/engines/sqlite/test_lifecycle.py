"""What a server is started with, and what it leaves behind."""

from pathlib import Path

import msgspec

from primacy.engines.sqlite.lifecycle import keep_short, spec_of
from primacy.engines.sqlite.server.spec import read_spec
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.model import Address, NodeId

A, B = NodeId("a"), NodeId("b")


def test_a_server_is_told_its_own_doors_and_files_and_understands_it(tmp_path: Path) -> None:
    def doors(port: int) -> dict[NodeId, Address]:
        return {A: Address("10.0.0.1", port), B: Address("10.0.0.2", port)}

    settings = SqliteSettings(
        cluster="test",
        node=B,
        doors=doors(7001),
        pull_doors=doors(7105),
        clone_doors=doors(7104),
        state_dir=tmp_path,
        cluster_secret=bytes(range(32)),
        users_path=tmp_path / "users",
    )
    written = tmp_path / "server.json"
    written.write_bytes(msgspec.json.encode(spec_of(settings)))
    spec = read_spec(written)
    assert (spec.host, spec.port) == ("10.0.0.2", 7001)
    assert spec.pull is not None
    assert (spec.pull.host, spec.pull.port) == ("10.0.0.2", 7105)
    assert spec.database_path == tmp_path / "data" / "db.sqlite"
    assert spec.control_path == str(settings.layout.control)
    assert spec.page_path == str(settings.page)
    assert spec.epoch == 0  # What it is to be it hears from its agent.
    assert bytes(range(32)).hex() not in written.read_text()


def test_what_servers_wrote_does_not_grow_without_end(tmp_path: Path) -> None:
    output = tmp_path / "server.out"
    keep_short(output, bytes_max=10)
    assert not output.exists()
    for text in ("short", "longer than that", "longer than that, again"):
        output.write_text(text)
        keep_short(output, bytes_max=10)
    assert not output.exists()
    assert (tmp_path / "server.out.1").read_text() == "longer than that, again"
