"""Where the log of an old primary leaves the history of the cluster. Pure, and the same for all.

Does not  Tell an epoch that was begun and never taken over by anybody from one that was: the place
          may then be too early, never too late.
"""

from collections.abc import Collection

from primacy.engines.api import Branch


def parting(branches: Collection[Branch], held: Collection[Branch], end: int) -> Branch | None:
    """The later epoch at whose beginning a log that ends at `end` goes another way; None: it does
    not. `held`: the beginnings of epochs that stand in that log."""
    shared = max((each.epoch for each in branches if each in held), default=0)
    beyond = [each for each in branches if each.epoch > shared and each.first_sequence <= end]
    return min(beyond, key=lambda each: (each.first_sequence, each.epoch), default=None)
