"""Which host to try next, while the server that is wanted has not been found. Pure."""

from collections import deque
from dataclasses import dataclass, field

from primacy.model import Address

PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 0.5
"""After all hosts were tried in vain: a failover takes well under a second."""

TROUBLES_SHOWN_MAX = 8


@dataclass(frozen=True, slots=True)
class Next:
    """Wait, then try this host."""

    host: Address
    pause_s: float


@dataclass
class Finder:
    """Of one search. Hosts in turn, beginning with the one that served last; whom a server names
    as its leader comes first, once in each round."""

    hosts: tuple[Address, ...]
    last_good: Address | None = None
    troubles: dict[str, str] = field(default_factory=dict)
    _round: deque[Address] = field(default_factory=deque)
    _hinted: set[Address] = field(default_factory=set)
    _pause_s: float = 0.0

    def next(self) -> Next:
        pause_s = 0.0
        if not self._round:
            pause_s = self._pause_s
            self._pause_s = min(max(2 * pause_s, PAUSE_FIRST_S), PAUSE_MAX_S)
            self._begin_round()
        return Next(self._round.popleft(), pause_s)

    def failed(self, host: Address, why: str) -> None:
        self.troubles[str(host)] = why

    def hint(self, leader: Address) -> None:
        """A replica has said who leads."""
        if leader not in self._hinted:
            self._hinted.add(leader)
            if leader in self._round:
                self._round.remove(leader)
            self._round.appendleft(leader)

    def why(self) -> str:
        """What is wrong with each host, for a person."""
        shown = list(self.troubles.items())[:TROUBLES_SHOWN_MAX]
        return "; ".join(f"{host}: {why}" for host, why in shown) or "no host was reached"

    def _begin_round(self) -> None:
        self._hinted.clear()
        hosts = list(self.hosts)
        if self.last_good is not None:
            hosts = [self.last_good, *(each for each in hosts if each != self.last_good)]
        self._round.extend(hosts)
