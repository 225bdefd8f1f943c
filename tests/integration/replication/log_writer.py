"""Writes to a log until it is killed, and says after each sync how far it is durable.

python log_writer.py DIRECTORY SEED
"""

import random
import sys
from pathlib import Path

from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Entry, Kind, epoch_entry
from primacy.telemetry import ignore

FILE_BYTES = 200_000


def payload_of(index: int) -> bytes:
    """What the record of that index holds: nothing else is ever written."""
    return random.Random(index).randbytes(index * 37 % 3_000)


def main() -> None:
    directory, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    log = Log.open(directory, limits=LogLimits(file_bytes=FILE_BYTES), events=ignore)
    node = NodeId(f"n{chance.randrange(3)}")
    epoch = Epoch(log.end.epoch + 1)
    log.append([epoch_entry(node, schema_hash=0, commit_time_us=0)], epoch=epoch, source=node)
    while True:
        for _ in range(chance.randrange(4)):
            first = log.end.index + 1
            indexes = range(first, first + chance.randrange(1, 20))
            log.append(
                [Entry(Kind.ROWS, payload_of(index), 0, 0) for index in indexes],
                epoch=epoch,
                source=node,
            )
        sys.stdout.write(f"{log.sync().index}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
