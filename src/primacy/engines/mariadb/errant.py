"""Transactions that a replica wrote by itself: an account that bypasses `read_only` did. Pure.

They stand at the end of its log under the epoch of somebody else, and the server gave them the
sequences that the primary gives to other transactions. So the end of such a log says nothing of
how much of the primary's history it holds.

Promises  What the node wrote in epochs of its own, or before an epoch row that it shares with the
          cluster, is never taken for errant.
Assumes   Server ids are those of `MariaDbSettings.server_id_of_start`.
Does not  See what was kept out of the log (`sql_log_bin = 0`) or put into another domain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from primacy.engines.mariadb.gtid import DOMAIN, Gtid
from primacy.engines.mariadb.settings import SERVER_IDS_PER_NODE
from primacy.model import NodeId


@dataclass(frozen=True, slots=True)
class Author:
    """A node as its transactions name it."""

    node: NodeId
    number: int

    @classmethod
    def of(cls, node: NodeId, server_id: int) -> "Author":
        """By the id of any of its server's lives."""
        return cls(node, server_id // SERVER_IDS_PER_NODE)

    def wrote(self, gtid: Gtid) -> bool:
        return gtid.domain == DOMAIN and gtid.server_id // SERVER_IDS_PER_NODE == self.number


def errant(
    written: Sequence[Gtid], author: Author, led_by: NodeId | None, since: int
) -> list[Gtid]:
    """Of `written`: what `author` wrote by itself. The newest epoch of the log is `led_by` a node
    and begins at the sequence `since`; None: none has begun, and nothing can be said."""
    if led_by is None or led_by == author.node:
        return []
    return [each for each in written if each.sequence > since and author.wrote(each)]
