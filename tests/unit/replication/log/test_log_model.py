"""Any order of appends, syncs, restarts, crashes, cuts and purges, against a list of records."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.replication.log.given import copied, everything, opened

from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log
from primacy.replication.log.record import ORIGIN_POINT, Entry, Kind, Point, decode, epoch_entry

FILE_BYTES = 900
CACHE_BYTES = 300


class LogMachine(RuleBasedStateMachine):
    """The model: payload and point of each record, how many are durable, who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.directory = self.root / "log"
        self.life = 0
        self.log: Log = opened(self.directory, file_bytes=FILE_BYTES, cache_bytes=CACHE_BYTES)
        self.records: list[tuple[bytes, Point]] = []
        self.durable = 0
        self.epoch = 0
        self.node = NodeId("a")
        self.holds: dict[str, int] = {}

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.root)

    @initialize()
    def begin(self) -> None:
        self._begin_epoch("a")

    @rule(node=st.sampled_from(["a", "b", "a-name-of-many-letters"]))
    def promote(self, node: str) -> None:
        self._begin_epoch(node)

    def _begin_epoch(self, node: str) -> None:
        self.epoch += 1
        self.node = NodeId(node)
        self._append([epoch_entry(self.node, schema_hash=0, commit_time_us=0)])

    @rule(sizes=st.lists(st.integers(0, 400), min_size=1, max_size=4), fill=st.integers(0, 255))
    def append(self, sizes: list[int], fill: int) -> None:
        self._append([Entry(Kind.ROWS, bytes([fill]) * size, 1, 2) for size in sizes])

    def _append(self, entries: list[Entry]) -> None:
        files = len(list(self.directory.glob("log-*.bin")))
        data = self.log.append(entries, epoch=Epoch(self.epoch), source=self.node)
        if len(list(self.directory.glob("log-*.bin"))) > files:
            self.durable = len(self.records)  # A new file is begun behind durable records only.
        self.records += [(payload, header.point) for header, payload in decode(data)]

    @rule()
    def sync(self) -> None:
        self.log.sync()
        self.durable = len(self.records)

    @rule()
    def restart(self) -> None:
        self.log.close()
        self.log = opened(self.directory, file_bytes=FILE_BYTES, cache_bytes=CACHE_BYTES)
        self.durable = len(self.records)

    @rule(lost=st.floats(0, 1), damage=st.sampled_from(["cut", "zeros", "noise"]))
    def lose_power(self, lost: float, damage: str) -> None:
        """Some of what was not synced is gone, or was never written."""
        place = self.log.place_of(self.durable + 1)
        self.life += 1
        directory = copied(self.directory, f"life-{self.life}")
        self.log.close()
        if place is not None:
            path = directory / place.file
            data = bytearray(path.read_bytes())
            end_offset = len(data.rstrip(b"\0"))
            begin = place.offset + int(max(end_offset - place.offset, 0) * lost)
            torn = {"cut": b"", "zeros": bytes(50), "noise": b"\xa5" * 50}[damage]
            if damage == "cut":
                del data[begin:]
            else:
                data[begin : begin + 50] = torn  # What follows did reach the disk.
            path.write_bytes(data)
        shutil.rmtree(self.directory)
        self.directory = directory
        self.log = opened(directory, file_bytes=FILE_BYTES, cache_bytes=CACHE_BYTES)
        assert self.durable <= self.log.end.index <= len(self.records)
        del self.records[self.log.end.index :]
        self.durable = len(self.records)
        self._live_on()

    @precondition(lambda self: self.records)
    @rule(part=st.floats(0, 1))
    def cut(self, part: float) -> None:
        first = self.log.first.index
        after = first + int((len(self.records) - first) * part)
        self.log.cut(after)
        if after < len(self.records):
            del self.records[after:]
            self.durable = after
            self._live_on()

    def _live_on(self) -> None:
        """Whoever writes next is the primary of a later epoch."""
        self.epoch = max(self.epoch, self.log.end.epoch)
        self._begin_epoch("b")

    @rule(name=st.sampled_from(["x", "y"]), part=st.floats(0, 1))
    def hold(self, name: str, part: float) -> None:
        first = self.log.first.index
        index = first + int((len(self.records) - first) * part)
        self.log.hold(name, index)
        self.holds[name] = index

    @rule(name=st.sampled_from(["x", "y"]))
    def release(self, name: str) -> None:
        self.log.release(name)
        self.holds.pop(name, None)

    @rule(part=st.floats(0, 1), keep_bytes=st.integers(0, 3_000))
    def purge(self, part: float, keep_bytes: int) -> None:
        before_index = int(len(self.records) * part) + 1
        first, size_bytes = self.log.first.index, self.log.size_bytes
        freed_bytes = self.log.purge(keep_bytes=keep_bytes, before_index=before_index)
        assert self.log.size_bytes == size_bytes - freed_bytes
        if freed_bytes:
            assert self.log.size_bytes >= keep_bytes
            assert first < self.log.first.index < before_index
            assert all(self.log.first.index <= held for held in self.holds.values())

    @invariant()
    def the_log_is_the_list(self) -> None:
        log, first = self.log, self.log.first.index
        assert log.end == (self.records[-1][1] if self.records else ORIGIN_POINT)
        assert log.durable.index == self.durable
        assert log.gtids.count == len(self.records)
        found = [(payload, header.point) for header, payload in decode(everything(log))]
        assert found == self.records[first:]

    @invariant()
    def each_record_is_found(self) -> None:
        first = self.log.first.index
        for index in {first + 1, (first + len(self.records)) // 2 + 1, len(self.records)}:
            if first < index <= len(self.records):
                assert self.log.point(index) == self.records[index - 1][1]
                assert self.log.read(index - 1, bytes_max=1).endswith(self.records[index - 1][0])
        if first:
            assert self.log.point(first) == self.records[first - 1][1]


LogMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_any_order_of_calls_leaves_the_log_that_a_list_would_be = LogMachine.TestCase
