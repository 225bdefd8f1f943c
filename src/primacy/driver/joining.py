"""From a list of hosts to a logged-in connection with the server that is wanted. Sans-IO."""

from collections.abc import Callable

from primacy.driver.effects import Close, Connect, Pause, Steps
from primacy.driver.exceptions import ProgrammingError, Unavailable, raised_by
from primacy.driver.finding import Finder
from primacy.driver.line import Clock, Line, Lost
from primacy.driver.target import Target, Wanted, address_of
from primacy.engines.sqlite.protocol import (
    PROTOCOL_VERSION,
    Branch,
    Challenge,
    Failure,
    Greeting,
    Login,
    Proof,
    ServerRole,
    Welcome,
    said_at_login,
)
from primacy.engines.sqlite.scram import proof_of
from primacy.model import Address

ATTEMPT_S = 2.0
"""For one of several hosts, and for a leader that was named. A single one, a router perhaps, gets
all the time there is."""


class Joiner:
    """Finds a server, again after each loss."""

    def __init__(self, target: Target, *, now_s: Clock, nonce: Callable[[], bytes]) -> None:
        self._target = target
        self._now_s = now_s
        self._nonce = nonce
        self._last_good: Address | None = None
        self._finder = Finder(target.hosts)

    def join(self, *, deadline_s: float, leader: str = "") -> Steps[Line]:
        """`Unavailable` at the deadline; what the server refuses for good is raised at once."""
        self._finder = Finder(self._target.hosts, last_good=self._last_good)
        self._hint(leader)
        is_choosy = True  # One round without compromise; see `_is_wanted`.
        seen = 0
        while True:
            step = self._finder.next()
            if self._now_s() + step.pause_s >= deadline_s:
                raise Unavailable(
                    f"no {self._looked_for} was found in time: {self._finder.why()}",
                    hint="Is the cluster healthy (`primacy status`), and are the hosts right?",
                )
            if step.pause_s:
                yield Pause(step.pause_s)
            found = yield from self._try(step.host, deadline_s, is_choosy=is_choosy)
            if isinstance(found, Line):
                self._last_good = step.host
                return found
            self._finder.failed(step.host, found)
            seen += 1
            is_choosy = seen < len(self._target.hosts)

    @property
    def _looked_for(self) -> str:
        return "server" if self._target.wanted is Wanted.ANY else self._target.wanted.value

    def _hint(self, leader: str) -> None:
        address = address_of(leader) if leader else None
        if address is not None and self._target.wanted is Wanted.PRIMARY:
            self._finder.hint(address)

    def _try(self, host: Address, deadline_s: float, *, is_choosy: bool) -> Steps[Line | str]:
        """A line, or why this host is none."""
        left_s = deadline_s - self._now_s()
        within_s = left_s if self._target.hosts == (host,) else min(ATTEMPT_S, left_s)
        until_s = self._now_s() + within_s
        line = Line(self._now_s)
        why = ""
        try:
            yield Connect(host, min(ATTEMPT_S, within_s))
            greeting = yield from line.expect(Greeting, deadline_s=until_s)
            why = self._not_wanted(greeting, is_choosy=is_choosy)
            if not why and isinstance(greeting, Greeting):
                why = yield from self._log_in(line, greeting, deadline_s=until_s)
        except (OSError, Lost) as error:
            why = str(error) or type(error).__name__
        except BaseException:
            yield Close()
            raise
        if why:
            yield Close()
            return why
        return line

    def _not_wanted(self, greeting: Greeting | Failure, *, is_choosy: bool) -> str:
        """Why not; empty: it will do."""
        if isinstance(greeting, Failure):
            return greeting.what
        if greeting.version != PROTOCOL_VERSION:
            return f"it speaks version {greeting.version}, this driver version {PROTOCOL_VERSION}"
        is_primary = greeting.role is ServerRole.PRIMARY
        match self._target.wanted:
            case Wanted.PRIMARY if not is_primary:
                self._hint(greeting.leader)
                leads = f", {greeting.leader} leads" if greeting.leader else ""
                return f"{greeting.node} is not the primary{leads}"
            case Wanted.REPLICA if is_primary and is_choosy:
                return f"{greeting.node} is the primary"
            case _:
                return ""

    def _log_in(self, line: Line, greeting: Greeting, *, deadline_s: float) -> Steps[str]:
        target = self._target
        login = Login(PROTOCOL_VERSION, target.database, target.user, self._nonce())
        yield from line.send(login, deadline_s=deadline_s)
        signature = b""
        if greeting.needs_login:
            challenge = yield from line.expect(Challenge, deadline_s=deadline_s)
            if isinstance(challenge, Failure):
                return self._refused(challenge)
            said = said_at_login(greeting, login, challenge)
            proof, signature = proof_of(
                target.password, salt=challenge.salt, iterations=challenge.iterations, said=said
            )
            yield from line.send(Proof(proof), deadline_s=deadline_s)
        welcome = yield from line.expect(Welcome, deadline_s=deadline_s)
        if isinstance(welcome, Failure):
            return self._refused(welcome)
        if welcome.signature != signature:
            raise ProgrammingError(
                f"{greeting.node} does not know the password that it asks for",
                hint="Something else may be listening there. Check the hosts.",
            )
        line.greeting = greeting
        return ""

    def _refused(self, failure: Failure) -> str:
        if failure.branch is Branch.REJECTED:
            raise raised_by(failure)
        return failure.what
