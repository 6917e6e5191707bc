"""When a failed attempt is followed by another."""

from server.domain.moment import Millis
from server.domain.policy import Policy


def backoff(failed_attempts: int, policy: Policy) -> Millis:
    """Return the wait after the n-th failed attempt: doubled each time, up to a limit."""
    doublings = min(failed_attempts - 1, 32)
    return min(policy.retry_backoff << doublings, policy.retry_backoff_limit)
