"""The words that every room shares. Values only: no behaviour, no I/O."""

from dataclasses import dataclass
from enum import Enum
from typing import NewType

import msgspec

NodeId = NewType("NodeId", str)
"""A member of the cluster, by the name that the configuration gives it. Never an address."""

Incarnation = NewType("Incarnation", str)
"""One life of a disk: new after every wipe, clone or restore. Random, never reused."""

Term = NewType("Term", int)
"""Raft's: each has at most one leader. Starts at 0, before the first election."""

LogIndex = NewType("LogIndex", int)
"""A place in Raft's log, from 1. Index 0 is the empty log."""

Epoch = NewType("Epoch", int)
"""The fencing token of a primary: grows with each. 0 means that there was none yet."""

Revision = NewType("Revision", int)
"""One state of the store: each write transaction raises it by one. The empty store has 0."""


class Role(Enum):
    """What a node's database is to the cluster."""

    PRIMARY = "primary"
    REPLICA = "replica"
    WITNESS = "witness"


class Address(msgspec.Struct, frozen=True, order=True):
    """Where a TCP door listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Position(msgspec.Struct, frozen=True, order=True):
    """How far a log goes: ordered by the epoch of its last record, then by its sequence.

    Sequences alone tie across branches of history; (epoch, sequence) does not.
    """

    epoch: Epoch
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.sequence}"


ORIGIN = Position(Epoch(0), 0)
"""The empty log."""


@dataclass(frozen=True, slots=True)
class Member:
    """A data node in one of its lives. Other incarnations of the same name do not count."""

    node: NodeId
    incarnation: Incarnation

    def __str__(self) -> str:
        return f"{self.node}#{self.incarnation[:6]}"
