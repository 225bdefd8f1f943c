"""The promotion rule: whose acknowledgement counts, and who may be promoted. Pure.

Promises  Under D = (k acknowledgements of the members S, n of them), any n - k + 1 sealed members
          include one that holds every acknowledged write; the most advanced of them holds all.
Assumes   What a member acknowledged, it holds durably; a seal is durable before it is published;
          the transaction that claims an epoch compares every revision that this decision used.
Source    DESIGN: the promotion rule, 5 and 6. docs/protocols/failover.md has the argument.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from primacy.model import Epoch, Incarnation, Member, NodeId, Position
from primacy.replication.records import DurabilityRecord, SealNote


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """May this node be promoted now? If not, what is missing."""

    is_allowed: bool
    reason: str
    counted: tuple[NodeId, ...] = ()
    """The nodes whose seals the claim must compare."""
    is_tie: bool = False
    """Another sealed member is equally advanced and goes first by name: wait for it a while."""
    goes_first: NodeId | None = None
    """In a tie: whom to wait for."""
    is_lossy: bool = False
    """Allowed only because the record or the policy says that a loss may happen."""
    may_lose: str = ""
    """Which of the two says so, in words."""


def seals_needed(member_count: int, acks: int) -> int:
    """How many members must be sealed so that one of them holds every acknowledged write.

    A write is on `acks` of them; it can miss at most `member_count - acks`, so one more is enough.
    """
    return member_count - acks + 1


def counting_seals(
    record: DurabilityRecord, seals: Collection[SealNote], epoch: Epoch
) -> list[SealNote]:
    """Seals for exactly `epoch` by exactly the lives that the record names."""
    return [
        each for each in seals if each.epoch == epoch and record.names(each.node, each.incarnation)
    ]


def rank(
    seal: SealNote, priority: Mapping[NodeId, int]
) -> tuple[Position, Position, bool, int, str]:
    """Most advanced first when sorted in reverse; the name only settles ties. What a replica wrote
    by itself counts in no position, and puts it behind those that hold as much without it."""
    inverted_name = "".join(chr(0x10FFFF - ord(letter)) for letter in seal.node)
    is_clean = not seal.is_errant
    return seal.received, seal.applied, is_clean, priority.get(seal.node, 0), inverted_name


def judge_sealed(
    record: DurabilityRecord,
    own: SealNote,
    seals: Collection[SealNote],
    *,
    priority: Mapping[NodeId, int],
    accepted_loss: Collection[NodeId] = (),
) -> Verdict:
    """Rule 5(b) for the node that wrote `own`, under a record with acks >= 1.

    `accepted_loss` names members that an operator gives up (rule 7): they need not be sealed.
    """
    counted = counting_seals(record, seals, own.epoch)
    names = tuple(sorted(each.node for each in counted))
    given_up = [each.node for each in record.members if each.node in accepted_loss]
    needed = seals_needed(len(record.members), record.acks)
    needed = max(1, needed - len([node for node in given_up if node not in names]))
    everyone_is_given_up = bool(given_up) and set(given_up) == {
        each.node for each in record.members
    }
    if everyone_is_given_up and not counted:
        return judge_lossy(own, seals, priority=priority, why="every member is given up")
    if own not in counted:
        return Verdict(
            is_allowed=False,
            counted=names,
            reason=f"{own.node} is not in the sync set of epoch {record.epoch}: {shown(record)}",
        )
    if len(counted) < needed:
        missing = sorted(each.node for each in record.members if each.node not in names)
        return Verdict(
            is_allowed=False,
            counted=names,
            reason=f"{len(counted)} of {needed} needed seals for epoch {own.epoch}: an acknowledged"
            f" write may be only on {', '.join(missing)}",
        )
    best = max(counted, key=lambda each: rank(each, priority))
    if best is own or best.node == own.node:
        return Verdict(
            is_allowed=True,
            counted=names,
            is_lossy=bool(given_up),
            reason=f"most advanced of {len(counted)} sealed ({needed} needed) at {own.received}",
        )
    return Verdict(
        is_allowed=best.received == own.received,
        counted=names,
        is_lossy=bool(given_up),
        is_tie=best.received == own.received,
        goes_first=best.node,
        reason=f"{best.node} goes first: it is at {best.received}, {own.node} at {own.received}",
    )


def judge_lossy(
    own: SealNote,
    seals: Collection[SealNote],
    *,
    priority: Mapping[NodeId, int],
    why: str = "acks = 0",
) -> Verdict:
    """Rule 6 under a lossy record, after the wait: the most advanced that can be reached."""
    sealed = [each for each in seals if each.epoch == own.epoch]
    best = max(sealed, key=lambda each: rank(each, priority))
    names = tuple(sorted(each.node for each in sealed))
    if best.node != own.node:
        return Verdict(
            is_allowed=best.received == own.received,
            is_tie=best.received == own.received,
            goes_first=best.node,
            counted=names,
            is_lossy=True,
            may_lose=why,
            reason=f"{why}: {best.node} goes first at {best.received}; {own.node} is at"
            f" {own.received}",
        )
    return Verdict(
        is_allowed=True,
        counted=names,
        is_lossy=True,
        may_lose=why,
        reason=f"{why}: most advanced of {len(sealed)} reachable at {own.received};"
        " a loss is counted when the old primary returns",
    )


def judge_unknown_record(
    own: SealNote,
    seals: Collection[SealNote],
    data_nodes: Collection[NodeId],
    *,
    priority: Mapping[NodeId, int],
) -> Verdict:
    """Where the durability record is lost: every data node must be sealed."""
    sealed = {each.node: each for each in seals if each.epoch == own.epoch}
    missing = sorted(set(data_nodes) - set(sealed))
    names = tuple(sorted(sealed))
    if missing:
        return Verdict(
            is_allowed=False,
            counted=names,
            reason="the durability record is unknown, so every data node must be sealed;"
            f" missing: {', '.join(missing)}",
        )
    best = max(sealed.values(), key=lambda each: rank(each, priority))
    return Verdict(
        is_allowed=best.received == own.received,
        counted=names,
        is_tie=best.node != own.node and best.received == own.received,
        goes_first=best.node,
        reason=f"the durability record is unknown; all sealed; {best.node} is most advanced",
    )


def may_return(
    record: DurabilityRecord, node: NodeId, incarnation: Incarnation | None, *, is_cut: bool
) -> Verdict:
    """Rule 5(a): the recorded primary itself, if its log was never cut or rewound since."""
    if record.primary != Member(node, incarnation or Incarnation("")):
        return Verdict(is_allowed=False, reason=f"the record names {record.primary} as primary")
    if is_cut:
        return Verdict(
            is_allowed=False, reason=f"{node}'s log was cut since it was primary: its right is gone"
        )
    return Verdict(
        is_allowed=True, reason=f"{node} was the recorded primary and holds all that it wrote"
    )


def is_heir(record: DurabilityRecord, own: SealNote) -> bool:
    """Rule 5(c): it won an epoch since and could not record its own D. It held all that counts
    under this one when it won; those whose seals were counted then acknowledge nothing under it any
    more, so that nothing was added since."""
    return Member(own.node, own.incarnation) in record.heirs and not own.is_cut


def shown(record: DurabilityRecord) -> str:
    """For people: `1 of {b, c}`."""
    names = ", ".join(each.node for each in record.members)
    note = " (lossy)" if record.is_lossy else " (degraded)" if record.is_degraded else ""
    return f"{record.acks} of {{{names}}}{note}"
