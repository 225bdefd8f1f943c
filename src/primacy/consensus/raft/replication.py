"""Replication: how the leader's log becomes everybody's, and when it is committed.

Source    Ongaro and Ousterhout 2014, sections 5.3, 5.4.2 and 7; Ongaro's thesis, 10.2 (the
          leader writes in parallel with its followers, appends are batched and pipelined)
Promises  An entry counts as committed only when a majority holds it durably and it is of the
          leader's own term, or stands before one that is. The leader counts itself only after
          its own disk has answered. A follower never learns of a commit index beyond what its
          log is known to share with the leader's.
Assumes   Messages may be lost, repeated, delayed and reordered.
"""

from primacy.consensus.machine import (
    Accepted,
    Entry,
    Propose,
    Refused,
    SendSnapshot,
    SnapshotReceived,
    SnapshotSaved,
    SnapshotSent,
)
from primacy.consensus.quorum import reached_by_majority
from primacy.consensus.raft.core import Core
from primacy.consensus.raft.messages import Append, AppendRejected, AppendReply, Heartbeat
from primacy.consensus.raft.progress import Pace, Progress
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, NodeId


class Replication:
    """Both sides of appending. The leader's numbers are valid while it leads."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.term_start_index = LogIndex(0)
        """Where the no-op of the own term stands: committed means that reads may be answered."""
        self.uncommitted_bytes = 0
        self.round = 0
        self.heartbeat_due_s = 0.0

    # ---- leader -------------------------------------------------------------------------

    def lead(self) -> None:
        """Open the own term with a no-op: only that lets older entries be counted."""
        core = self._core
        next_index = LogIndex(core.log.last_index + 1)
        core.progress = {peer: Progress(next_index, core.now_s) for peer in core.peers}
        tail = core.log.slice(core.commit_index + 1, core.log.last_index)
        self.uncommitted_bytes = sum(len(entry.data) for entry in tail)
        self.term_start_index = next_index
        self.round = 0
        self._append_own((Entry(core.term, next_index, b""),))
        self.heartbeat_due_s = core.now_s + core.timing.heartbeat_s

    def propose(self, proposal: Propose) -> None:
        core = self._core
        size_bytes = sum(map(len, proposal.commands))
        limit = core.limits.uncommitted_bytes_max
        if self.uncommitted_bytes and self.uncommitted_bytes + size_bytes > limit:
            reason = f"{self.uncommitted_bytes} bytes wait to be committed, the limit is {limit}"
            core.effects.append(Refused(proposal.proposal_id, core.node, reason))
            return
        if not all(proposal.commands):
            reason = "an empty command stands for the no-op of a new leader"
            core.effects.append(Refused(proposal.proposal_id, core.node, reason))
            return
        first = LogIndex(core.log.last_index + 1)
        core.effects.append(Accepted(proposal.proposal_id, core.term, first))
        if proposal.commands:
            self.uncommitted_bytes += size_bytes
            self._append_own(
                tuple(
                    Entry(core.term, LogIndex(index), data)
                    for index, data in enumerate(proposal.commands, first)
                )
            )

    def _append_own(self, entries: tuple[Entry, ...]) -> None:
        core = self._core
        core.extend_log(entries)
        for peer, progress in core.progress.items():
            self._send_waiting(peer, progress)

    def _send_waiting(self, peer: NodeId, progress: Progress) -> None:
        """Send what the follower lacks, as far as its window allows."""
        core, limits = self._core, self._core.limits
        while progress.pace is not Pace.SNAPSHOT:
            if progress.pace is Pace.PROBE:
                if progress.is_probe_out:
                    return
            elif (
                progress.next_index > core.log.last_index
                or len(progress.inflight) >= limits.inflight_messages_max
                or progress.inflight_bytes >= limits.inflight_bytes_max
            ):
                return
            self._send_append(peer, progress)

    def _send_append(self, peer: NodeId, progress: Progress, *, is_empty: bool = False) -> None:
        core, limits = self._core, self._core.limits
        prev_index = LogIndex(progress.next_index - 1)
        prev_term = core.log.term_at(prev_index)
        if prev_term is None:
            progress.await_snapshot()
            core.effects.append(SendSnapshot(peer, core.term))
            return
        entries: tuple[Entry, ...] = ()
        if not is_empty:
            entries = core.log.batch(
                progress.next_index,
                entries_max=limits.append_entries_max,
                bytes_max=limits.append_bytes_max,
            )
        core.send(
            peer,
            Append(core.term, core.incarnation, prev_index, prev_term, entries, core.commit_index),
        )
        if entries or progress.pace is Pace.PROBE:
            last = entries[-1].index if entries else prev_index
            progress.sent(last, sum(len(entry.data) for entry in entries))

    def heartbeat(self) -> None:
        """One numbered broadcast."""
        core = self._core
        self.round += 1
        for peer, progress in core.progress.items():
            commit_index = LogIndex(min(core.commit_index, progress.match_index))
            core.send(peer, Heartbeat(core.term, core.incarnation, commit_index, self.round))
        self.heartbeat_due_s = core.now_s + core.timing.heartbeat_s

    def on_heartbeat_reply(self, peer: NodeId, progress: Progress) -> None:
        """The follower is alive: whatever it lacks may have been lost on the way."""
        if progress.match_index >= self._core.log.last_index or progress.pace is Pace.SNAPSHOT:
            return
        if progress.pace is Pace.PROBE:
            progress.is_probe_out = False
            self._send_waiting(peer, progress)
        else:
            # Behind everything in flight: it is rejected if any of that was lost.
            self._send_append(peer, progress, is_empty=True)

    def on_append_reply(self, peer: NodeId, message: AppendReply) -> None:
        core = self._core
        progress = core.progress[peer]
        if message.match_index > core.log.last_index:
            raise InvariantBroken(
                "leader-append-only",
                f"{peer} acknowledges {message.match_index} of {core.log.last_index}",
            )
        is_news = progress.acknowledged(message.match_index)
        match progress.pace:
            case Pace.PROBE:
                progress.replicate()
            case Pace.SNAPSHOT:
                if core.log.term_at(progress.match_index) is None:
                    return
                progress.replicate()
            case Pace.REPLICATE:
                pass
        if is_news:
            self.advance_commit()
        self._send_waiting(peer, progress)

    def on_append_rejected(self, peer: NodeId, message: AppendRejected) -> None:
        """Step back: to the last place where the two logs can agree."""
        core = self._core
        progress = core.progress[peer]
        match progress.pace:
            case Pace.REPLICATE:
                if message.prev_index <= progress.match_index:
                    return  # Rejected before the match was found.
            case Pace.PROBE:
                if message.prev_index != progress.next_index - 1:
                    return  # Rejects a probe that is over.
            case Pace.SNAPSHOT:
                return
        index, term = core.log.last_not_above(message.hint_index, message.hint_term)
        if message.hint_index < index or term > message.hint_term:
            index = LogIndex(min(message.hint_index, core.log.base_index - 1))  # Takes a snapshot.
        progress.probe(LogIndex(index + 1))
        self._send_waiting(peer, progress)

    def advance_commit(self) -> None:
        """Count what a majority holds durably; entries of older terms only along with own."""
        core = self._core
        reached = [progress.match_index for progress in core.progress.values()]
        reached.append(core.stable_index)
        index = reached_by_majority(reached)
        if index <= core.commit_index or index < self.term_start_index:
            return
        newly = core.log.slice(core.commit_index + 1, index)
        self.uncommitted_bytes -= sum(len(entry.data) for entry in newly)
        core.commit_to(index)
        for peer, progress in core.progress.items():
            self._tell_commit(peer, progress)

    def _tell_commit(self, peer: NodeId, progress: Progress) -> None:
        """At once, so that watches on followers are prompt."""
        core = self._core
        if progress.pace is not Pace.REPLICATE:
            return
        sent_before = len(core.effects)
        self._send_waiting(peer, progress)
        if len(core.effects) != sent_before:
            return  # The index travelled with entries.
        prev_index = LogIndex(progress.next_index - 1)
        prev_term = core.log.term_at(prev_index)
        if prev_term is not None:
            notice = Append(
                core.term,
                core.incarnation,
                prev_index,
                prev_term,
                (),
                core.commit_index,
                is_notice=True,
            )
            core.send(peer, notice)

    def on_snapshot_sent(self, event: SnapshotSent) -> None:
        progress = self._core.progress.get(event.to)
        if progress is None or progress.pace is not Pace.SNAPSHOT:
            return
        delivered = event.meta.index if event.is_delivered else progress.match_index
        progress.probe(LogIndex(delivered + 1))
        progress.is_probe_out = True  # Until it answers, or the next heartbeat is answered.

    # ---- follower -----------------------------------------------------------------------

    def on_append(self, leader: NodeId, message: Append) -> None:
        core, log = self._core, self._core.log
        prev_index, entries = message.prev_index, message.entries
        if prev_index < log.base_index:
            # What is compacted here is committed, so it is the same there.
            entries = tuple(entry for entry in entries if entry.index > log.base_index)
            if not entries:
                self._acknowledge(leader, core.commit_index)
                return
            prev_index = log.base_index
        elif log.term_at(prev_index) != message.prev_term:
            hint_index, hint_term = log.last_not_above(
                min(prev_index, log.last_index), message.prev_term
            )
            core.reply_soon(
                leader,
                AppendRejected(core.term, core.incarnation, prev_index, hint_index, hint_term),
            )
            return
        new = log.new_of(entries)
        if new:
            core.extend_log(new)
        match_index = LogIndex(prev_index + len(entries))
        core.commit_to(min(message.commit_index, match_index))
        if not message.is_notice:
            self._acknowledge(leader, match_index)

    def on_heartbeat(self, commit_index: LogIndex) -> None:
        """What it names was acknowledged here, in this term."""
        core = self._core
        if commit_index > core.log.last_index:
            raise InvariantBroken(
                "durable-before-acknowledged",
                f"{core.node}: commit {commit_index}, last {core.log.last_index}",
            )
        core.commit_to(commit_index)

    def on_snapshot(self, event: SnapshotReceived) -> None:
        """A snapshot of the leader of this term has arrived. Install it, unless the log already
        reaches through it: then only the commit index moves."""
        core, meta = self._core, event.meta
        if meta.index > core.commit_index:
            if core.log.term_at(meta.index) == meta.term:
                core.commit_to(meta.index)
            else:
                core.install(meta)
        self._acknowledge(event.sender, LogIndex(max(meta.index, core.commit_index)))

    def on_snapshot_saved(self, event: SnapshotSaved) -> None:
        """Compact, but keep a tail for slow followers."""
        core = self._core
        if event.meta.index <= core.applied_index:
            core.log.compact_to(event.meta.index - core.limits.trailing_entries)

    def _acknowledge(self, leader: NodeId, match_index: LogIndex) -> None:
        core = self._core
        core.reply(leader, AppendReply(core.term, core.incarnation, match_index))
