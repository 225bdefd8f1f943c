"""A process that writes a log is killed at any moment: what it called durable is there."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.replication.log_writer import payload_of
from tests.integration.replication.powerless import lose_log_tail

from primacy.replication.log import inspecting
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Kind, decode, epoch_start
from primacy.telemetry import Event

pytestmark = pytest.mark.integration

KILLS = 25
DEADLINE_S = 30.0
WRITER = Path(__file__).with_name("log_writer.py")


def killed_writer(directory: Path, seed: int, chance: random.Random) -> int:
    """Lets one write for some syncs; returns the last index that it called durable."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(directory), str(seed)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        durable = 0
        for _ in range(chance.randrange(1, 60)):
            line = writer.stdout.readline()
            assert line, "the writer ended by itself"
            durable = int(line)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()  # It went on until the kill reached it.
        assert writer.wait(DEADLINE_S) == -signal.SIGKILL
        whole = [line for line in rest if line.isdigit()]
        return int(whole[-2]) if len(whole) > 1 else durable  # The last line may be half a number.


def check(log: Log) -> None:
    """Nothing is invented: each record holds what its index says, under its epoch's primary."""
    after = log.first.index
    while data := log.read(after, bytes_max=1 << 20):
        for header, payload in decode(data):
            assert header.index == after + 1
            after = header.index
            if header.kind is Kind.EPOCH:
                assert epoch_start(payload).node == log.node_of(header.epoch)
            else:
                assert payload == payload_of(header.index)
    assert after == log.end.index


@pytest.mark.parametrize("seed", [1, 2])
def test_every_durable_record_survives_a_kill_and_nothing_is_invented(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    directory = tmp_path / "log"
    before = 0
    for life in range(KILLS):
        durable = killed_writer(directory, seed * 1_000 + life, chance)
        if life % 2:
            lose_log_tail(directory, durable, chance)
        told: list[Event] = []
        with Log.open(directory, limits=LogLimits(), events=told.append) as log:
            assert log.end.index >= durable >= before
            check(log)
            before = log.end.index
        assert inspecting.verify(directory).damage is None
        assert len(told) <= 1
    assert len(list(directory.glob("log-*.bin"))) > 3
