"""Admission: no disk votes twice, not even one that was wiped in between.

Every member durably notes which life (incarnation) of each peer it deals with, before it says
anything that depends on it. A message from another life is refused, with the reason. A member
that starts blank asks every other voter whether it is known, and takes part in nothing until
every one of them has answered that it knows no other life of it.

Why every one and not a majority: take the voters a, b, c. a votes for c in term 5; c's election
rests on a and c. Now a and b lose their disks while c is away. If a majority sufficed, the two
blank disks would admit each other, elect a leader of term 1 and overwrite what c and the old a
had committed. Only c knows the old life of a, so only c's answer is worth anything; and which
peer is the one that knows, nobody can tell beforehand.

The admission itself is noted by writing the own incarnation into `HardState.incarnations`: a
member that crashes while it still asks goes on asking.

    ASKING --- every voter answered, durably noted ---> ADMITTED
       |                                                   |
       +----------------- a voter refused -----------------+---> EXCLUDED, for this life
"""

import math

from primacy.consensus.machine import Excluded
from primacy.consensus.raft.core import Core
from primacy.consensus.raft.messages import Hello, HelloReply, Message, Refusal
from primacy.model import NodeId


class Admission:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._unanswered = set() if core.is_admitted else set(core.peers)
        self._excluders: set[NodeId] = set()
        self.hello_due_s = math.inf if core.is_admitted else core.now_s

    def on_time(self) -> None:
        """Ask those that have not answered; with no peers there is nobody to ask."""
        core = self._core
        if core.is_admitted or core.excluded_by is not None or core.now_s < self.hello_due_s:
            return
        if not self._unanswered:
            self._admit()
            return
        for peer in sorted(self._unanswered):
            core.send(peer, Hello(core.term, core.incarnation))
        self.hello_due_s = core.now_s + core.timing.election_timeout_min_s

    def knows(self, sender: NodeId, message: Message) -> bool:
        """Whether the message may be processed: it comes from the noted life of the sender."""
        core = self._core
        known = core.incarnations.get(sender)
        if known == message.incarnation:
            return core.is_admitted or isinstance(message, Hello | HelloReply)
        if known is None:
            if not core.is_admitted and not isinstance(message, Hello | HelloReply):
                return False
            core.note_incarnation(sender, message.incarnation)
            return True
        reason = (
            f"{sender} was {known[:6]} and now says {message.incarnation[:6]}: its disk was"
            " wiped, replaced or restored, and it may have voted before"
        )
        core.reply_soon(sender, Refusal(core.term, core.incarnation, message.incarnation, reason))
        return False

    def on_hello(self, sender: NodeId, message: Hello) -> None:
        core = self._core
        core.reply_soon(sender, HelloReply(core.term, core.incarnation, message.incarnation))

    def on_hello_reply(self, sender: NodeId, message: HelloReply) -> None:
        if message.to_incarnation != self._core.incarnation or self._core.is_admitted:
            return
        self._unanswered.discard(sender)
        if not self._unanswered:
            self._admit()

    def on_refusal(self, sender: NodeId, message: Refusal) -> None:
        """Stop for good: only a person can tell that this disk never voted."""
        core = self._core
        if message.refused_incarnation != core.incarnation:
            return  # It is about an earlier life.
        if sender not in self._excluders:
            self._excluders.add(sender)
            core.effects.append(Excluded(sender, message.reason))
        if core.excluded_by is None:
            core.excluded_by = sender
            self.hello_due_s = math.inf
            core.follow(core.term, None)

    def _admit(self) -> None:
        core = self._core
        core.is_admitted = True
        core.note_incarnation(core.node, core.incarnation)
        self.hello_due_s = math.inf
        core.draw_election_timeout()
        if not core.peers:
            core.election_due_s = core.now_s
