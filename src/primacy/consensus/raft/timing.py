"""How long a Raft member waits, and how much it holds. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Promises liveness only: no setting here can make two leaders of one term."""

    heartbeat_s: float
    election_timeout_min_s: float
    """Also how long a follower that has heard its leader refuses to vote for another."""
    election_timeout_max_s: float
    """Also how long a leader goes on without hearing from a majority."""

    @classmethod
    def for_lease(cls, ttl_s: float) -> "Timing":
        """The store's election ends well within a lease: see DESIGN, section 6."""
        return cls(
            heartbeat_s=ttl_s / 20,
            election_timeout_min_s=ttl_s / 5,
            election_timeout_max_s=ttl_s / 3,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one member holds at most."""

    append_bytes_max: int = 256 * 1024
    """Data in one append. A single larger entry travels alone."""
    append_entries_max: int = 1024
    inflight_messages_max: int = 64
    """Appends under way to one follower, unacknowledged."""
    inflight_bytes_max: int = 4 * 1024 * 1024
    uncommitted_bytes_max: int = 16 * 1024 * 1024
    """Above this a leader refuses proposals. A single larger one passes when nothing waits."""
    reads_waiting_max: int = 10_000
    trailing_entries: int = 5_000
    """Kept behind a snapshot, so that a slow follower needs no snapshot."""
