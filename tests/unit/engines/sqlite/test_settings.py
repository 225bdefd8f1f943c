"""What one SQLite engine is told."""

from pathlib import Path

import pytest

from primacy.engines.sqlite.settings import SqliteSettings
from primacy.errors import Rejected
from primacy.model import Address, NodeId

A, B = NodeId("a"), NodeId("b")


def settings(folder: Path) -> SqliteSettings:
    doors = {A: Address("127.0.0.1", 7001), B: Address("127.0.0.1", 7002)}
    return SqliteSettings(
        cluster="test",
        node=A,
        doors=doors,
        pull_doors=doors,
        clone_doors=doors,
        state_dir=folder,
        cluster_secret=b"not for anybody's eyes, 32 bytes",
    )


def test_a_socket_whose_path_the_kernel_refuses_is_refused_with_its_length() -> None:
    with pytest.raises(Rejected, match="at most 107 bytes"):
        settings(Path("/" + "x" * 100))


def test_pages_of_two_state_directories_are_two() -> None:
    assert settings(Path("/one")).page != settings(Path("/two")).page


def test_only_data_nodes_are_peers_and_the_secret_is_in_no_text() -> None:
    told = settings(Path("/one"))
    told.check_peer(B)
    with pytest.raises(Rejected, match="The data nodes are a, b"):
        told.check_peer(NodeId("w"))
    assert "anybody" not in repr(told)
