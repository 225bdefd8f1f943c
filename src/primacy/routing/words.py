"""Why a router sends a client away: said in place of the server's greeting, in the database's own
protocol, so that the client's driver shows it.

One module for each protocol: `mysql.py` (MariaDB), `sqlprotocol.py` (the SQLite engine). Nothing
has been sent to a database when it is said; pools and drivers connect again.
"""

from collections.abc import Callable
from enum import Enum


class Refusal(Enum):
    NO_DATABASE = "there is none to connect to now"
    TOO_MANY = "the router's own limit is reached"


Words = Callable[[Refusal, str], bytes]
"""The bytes that say so, with the reason for people; then the connection is closed."""
