"""What bounds a session: bytes, moments, counts."""

from dataclasses import dataclass

from primacy.replication.log.record import RECORD_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """The same on both ends, from the configuration of one cluster."""

    heartbeat_s: float = 0.25
    """Each end says something at least this often."""
    silence_s: float = 2.0
    """An end that has heard nothing for so long ends the session: several heartbeats, and no more
    than a lease lasts."""
    stranger_s: float = 5.0
    """For the whole greeting."""
    batch_bytes: int = 1 << 20
    """Read from the log at a time; one record may be longer."""
    window_bytes: int = 8 << 20
    """Sent to one receiver and not yet reported as durable. Past it that receiver waits, alone."""
    recent_bytes: int = 4 << 20
    """Of what was appended last, kept in memory for all receivers together: who is level with the
    log costs no reading."""
    waiting_bytes: int = 32 << 20
    """At a receiver, for its disk. Past it nothing is read from the connection: above the window of
    a source that keeps to it, with one longest record."""
    receivers_max: int = 64
    """Connections of one door, strangers included; more are refused."""
    connect_s: float = 2.0
    backoff_min_s: float = 0.02
    backoff_max_s: float = 0.5
    """Between two attempts, where nobody has refused for good: a failover waits for this."""
    refused_s: float = 5.0
    """After a refusal that does not pass by itself."""
    held_s: float = 600.0
    """How long the log is kept for a receiver that is gone; then purging may pass it by."""

    @property
    def payload_bytes_max(self) -> int:
        """Of records in one frame: a batch, or one longest record; and the byte before them."""
        return max(self.batch_bytes, RECORD_BYTES_MAX) + 1
