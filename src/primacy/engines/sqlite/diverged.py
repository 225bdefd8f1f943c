"""What a node has that the new history has not: read from its log's files, saved, counted.

The server is down. Its log belongs to the new history up to the beginning of the first later epoch
whose own record does not stand in this log. What lies at or behind that place was written by
nobody whom the cluster followed. Which epochs a log holds, and where each begins, is known from the
heads of its files and the last one: only the end that parts is read.

    diverged/IDENT/readable.sql    each transaction with its time and its rows, as SQL
    diverged/IDENT/records/        the same, as a log of its own: `primacy log dump --sql` reads it

Promises  Nothing is removed; what is found is saved and synced. Found again, it is the same folder.
"""

from collections.abc import Sequence

from primacy.engines.api import Branch, Diverged
from primacy.engines.histories import parting
from primacy.engines.sqlite.directory import LOG_NAME
from primacy.engines.sqlite.saving import beginning
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.errors import Conflict, Corrupt, NotFound
from primacy.replication.log.inspecting import opened_until_damage
from primacy.replication.log.reading import Readable
from primacy.runtime.threads import to_its_end

READ_BYTES = 4 << 20


async def save_diverged(settings: SqliteSettings, branches: Sequence[Branch]) -> Diverged:
    """`branches`: where the epochs of the cluster begin, as far as they are known."""
    return await to_its_end(_save_diverged, settings, branches)


def _save_diverged(settings: SqliteSettings, branches: Sequence[Branch]) -> Diverged:
    try:
        log, damage = opened_until_damage(settings.layout.data / LOG_NAME)
    except (Corrupt, NotFound):
        return Diverged(is_certain=False)
    held = [
        Branch(epoch=each.epoch, node=each.node, first_sequence=each.first) for each in log.spans
    ]
    branch = parting(branches, held, log.end.index)
    if branch is None:
        return Diverged(is_certain=damage is None)
    return _save(settings, branch, log, damage)


def _save(
    settings: SqliteSettings, branch: Branch, log: Readable, damage: Corrupt | None
) -> Diverged:
    """What was purged of it is not there to be saved; no cut and no rewind goes back so far."""
    after, last = max(branch.first_sequence - 1, log.first.index), log.end.index
    ident = f"{settings.node}-{branch.epoch}-{last}"
    words = "" if damage is None else damage.what
    with beginning(settings.layout.diverged / ident, log, after=after) as saving:
        try:
            while saving.after < last:
                saving.take(log.read(saving.after, bytes_max=READ_BYTES))
        except (Corrupt, Conflict) as error:
            words = error.what
        saving.end(words)
    tally = saving.tally
    return Diverged(
        ident=ident,
        epoch=branch.epoch,
        count=tally.count,
        own_count=tally.own_count,
        first=str(log.gtid_of(after + 1)),
        last=str(log.gtid_of(saving.after)),
        tables=tally.application_tables,
        path=str(saving.path),
        is_certain=not words and log.first.index < branch.first_sequence,
        parts_at=branch.first_sequence,
        obstacle=tally.obstacle,
    )
