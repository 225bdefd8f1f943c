"""Where to connect and how: a URL and options, as one frozen value. Pure."""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit

from primacy.driver.exceptions import InterfaceError
from primacy.model import Address

SCHEME = "primacy"
DEFAULT_PORT = 3307
"""The routers' door to the primary."""
HOSTS_MAX = 32

URL_HINT = "Write primacy://USER:PASSWORD@HOST1,HOST2:PORT/DATABASE?option=value."


class Wanted(Enum):
    """Which server is looked for."""

    PRIMARY = "primary"
    REPLICA = "replica"
    """A replica where one answers, else the primary. Reads only."""
    ANY = "any"
    """The first that answers. Reads only, unless it is the primary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    hosts: tuple[Address, ...]
    database: str = ""
    user: str = ""
    password: str = ""
    wanted: Wanted = Wanted.PRIMARY
    connect_timeout_s: float = 10.0
    """For finding the server that is wanted, over all hosts: longer than a failover takes."""
    timeout_s: float = 30.0
    """For each call, retries included."""
    fresh_ms: int | None = None
    """Reads on a replica: at most so far behind the primary."""

    def __str__(self) -> str:
        """Without the password."""
        who = f"{self.user}@" if self.user else ""
        return f"{SCHEME}://{who}{','.join(map(str, self.hosts))}/{self.database}"


def target_of(url: str, **options: object) -> Target:
    """`InterfaceError` names what is wrong. An option counts more than the URL's."""
    try:
        parts = urlsplit(url)
    except ValueError:  # Its words would show the password.
        raise _bad(f"{_shown(url)} is not a URL") from None
    if parts.scheme != SCHEME or not parts.netloc:
        raise _bad(f"{_shown(url)} is not a URL of {SCHEME}://")
    login, _, places = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    told: dict[str, object] = {
        "database": unquote(parts.path.lstrip("/")),
        "user": unquote(user),
        "password": unquote(password),
        "hosts": tuple(_address(each) for each in places.split(",") if each),
    }
    for key, text in parse_qsl(parts.query, keep_blank_values=True):
        told[key] = text
    told.update(options)
    return _checked(told)


def _checked(told: dict[str, object]) -> Target:
    known = set(Target.__dataclass_fields__) | {"target"}
    unknown = sorted(set(told) - known)
    if unknown:
        raise _bad(
            f"unknown options: {', '.join(unknown)}", "Known are " + ", ".join(sorted(known))
        )
    if "target" in told:
        told["wanted"] = told.pop("target")
    hosts = told["hosts"]
    if not isinstance(hosts, tuple) or not 1 <= len(hosts) <= HOSTS_MAX:
        raise _bad(f"between 1 and {HOSTS_MAX} hosts must be named")
    wanted = told.get("wanted", Wanted.PRIMARY)
    try:
        chosen = Wanted(wanted)
    except ValueError as error:
        names = ", ".join(each.value for each in Wanted)
        raise _bad(f"target = {wanted!r}", f"It is one of {names}.") from error
    fresh_ms = told.get("fresh_ms")
    return Target(
        hosts=hosts,
        database=str(told["database"]),
        user=str(told["user"]),
        password=str(told["password"]),
        wanted=chosen,
        connect_timeout_s=_seconds(told, "connect_timeout_s", 10.0),
        timeout_s=_seconds(told, "timeout_s", 30.0),
        fresh_ms=None if fresh_ms is None else _milliseconds(fresh_ms),
    )


def _seconds(told: dict[str, object], key: str, default: float) -> float:
    try:
        found = float(str(told.get(key, default)))
    except ValueError:
        found = -1.0
    if not 0 < found <= 86_400:
        raise _bad(
            f"{key} = {told.get(key)!r}", "It is a number of seconds above 0, at most 86400."
        )
    return found


def _milliseconds(value: object) -> int:
    try:
        found = int(str(value))
    except ValueError:
        found = -1
    if found < 0:
        raise _bad(f"fresh_ms = {value!r}", "It is a number of milliseconds from 0.")
    return found


def _address(text: str) -> Address:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not host or not (port.isdecimal() or not port) or not 0 < int(port or 1) < 65536:
        raise _bad(f"{text!r} is not HOST or HOST:PORT")
    return Address(host, int(port or DEFAULT_PORT))


def address_of(text: str) -> Address | None:
    """Of a server's word about its leader: a wrong one counts as none."""
    try:
        return _address(text)
    except InterfaceError:
        return None


def _shown(url: str) -> str:
    """Never a password in a message."""
    head, at, tail = url.rpartition("@")
    return repr(f"...@{tail}" if at and head else url[:200])


def _bad(what: str, hint: str = URL_HINT) -> InterfaceError:
    return InterfaceError(what, hint=hint)
