"""A loss of power: of what no sync covered, any sectors may have reached the disk, in any order."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.replication.log.given import A, everything, only_file, opened, rows, with_rows

from primacy.model import Epoch
from primacy.telemetry import Event

SECTOR_BYTES = 512

batches = st.lists(st.integers(0, 900), min_size=1, max_size=4)
steps = st.lists(st.one_of(batches, st.just("sync")), min_size=1, max_size=10)


@settings(max_examples=30, deadline=None)
@given(steps, st.data())
def test_what_was_durable_is_there_and_the_rest_is_a_prefix_of_what_was_appended(
    taken: list[list[int] | str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        log = with_rows(root / "log")
        path = only_file(log.directory)
        durable, versions = log.end, [path.read_bytes()]
        for step in taken:
            if step == "sync":
                durable, versions = log.sync(), []
            else:
                log.append(rows(*map(int, step)), epoch=Epoch(1), source=A)
            versions.append(path.read_bytes())
        whole, end = everything(log), log.end
        log.close()
        (root / "lost").mkdir()
        image = root / "lost" / path.name
        image.write_bytes(as_the_disk_has_it(versions, data))
        told: list[Event] = []
        with opened(root / "lost", told=told) as found:
            assert durable <= found.end <= end
            assert whole.startswith(everything(found))
        with opened(root / "lost") as found:
            assert whole.startswith(everything(found))


def as_the_disk_has_it(versions: list[bytes], data: st.DataObject) -> bytes:
    """Each sector as one of the states that it had since the last sync, that one's included; the
    file as long as in one of them."""
    size = len(data.draw(st.sampled_from(versions)))
    chosen = [
        data.draw(st.sampled_from(distinct))[:SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")
        for begin in range(0, size, SECTOR_BYTES)
        if (distinct := sorted({each[begin : begin + SECTOR_BYTES] for each in versions}))
    ]
    return b"".join(chosen)[:size]
