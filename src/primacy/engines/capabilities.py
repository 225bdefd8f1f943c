"""What each engine of this version keeps, as data: the configuration refuses the rest. Pure."""

from primacy.engines.api import Capabilities

MARIADB = Capabilities(
    name="mariadb",
    acks_max=1,  # One acknowledgement from any semi-synchronous replica ends its wait.
    ack_on=frozenset({"received"}),
    alternative="sqlite",
)

SQLITE = Capabilities(
    name="sqlite",
    acks_max=None,
    ack_on=frozenset({"received", "applied"}),
    alternative="",
)
