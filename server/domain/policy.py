"""The numbers the rules go by."""

from dataclasses import dataclass

from server.domain.moment import SECOND, Millis


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and delays, in milliseconds unless named otherwise. Settings give the values."""

    heartbeat_interval: Millis = 10 * SECOND
    """What an agent is told to keep between heartbeats."""

    lease: Millis = 30 * SECOND
    """How long a lease lasts without renewal: three heartbeats."""

    kill_grace: Millis = 10 * SECOND
    """From SIGTERM to SIGKILL."""

    deadline_slack: Millis = 20 * SECOND
    """What the server waits beyond an agent's own deadline before it declares the end itself."""

    claim_to_start: Millis = 60 * SECOND
    """How long a claimed task may stay without a RUNNING report."""

    infra_retry_limit: int = 3
    """How often a task may be lost with its agent and still be queued again."""

    retry_backoff: Millis = 1 * SECOND
    """Wait before the second attempt; doubled for each further one."""

    retry_backoff_limit: Millis = 60 * SECOND
    """The longest such wait."""

    quarantine_after: int = 3
    """How many failures in a row that are an agent's fault quarantine it."""

    quarantine: Millis = 10 * SECOND
    """How long an agent is quarantined first; doubled for each further failure."""

    quarantine_limit: Millis = 3600 * SECOND
    """The longest quarantine."""

    log_settle: Millis = 2 * SECOND
    """Silence after which the log of an attempt ended without counts is taken as whole."""

    log_incomplete_after: Millis = 60 * SECOND
    """How long missing lines are awaited after the end."""

    log_limit: int = 1024**3
    """Bytes of text that are kept of a log: its beginning and its end."""

    archive_logs: bool = False
    """Whether logs that are closed are to be archived."""

    seal_rows: bool = False
    """Whether the rows of logs that are closed are to be packed into blobs."""

    request_memory: Millis = 24 * 3600 * SECOND
    """How long an answered request id is remembered."""

    @property
    def kill_grace_seconds(self) -> int:
        """The grace as the API tells it: whole seconds, and never shorter than it is."""
        return -(-self.kill_grace // SECOND)
