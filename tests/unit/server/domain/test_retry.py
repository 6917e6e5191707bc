from hypothesis import given
from hypothesis import strategies as st

from server.domain.policy import Policy
from server.domain.retry import backoff

POLICY = Policy(retry_backoff=1000, retry_backoff_limit=60_000)


def test_the_wait_doubles_up_to_the_limit():
    waits = [backoff(n, POLICY) for n in range(1, 9)]
    assert waits == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.integers(1, 10**9))
def test_the_wait_is_never_over_the_limit_and_never_nothing(failed, first, limit):
    assert 1 <= backoff(failed, Policy(retry_backoff=first, retry_backoff_limit=limit)) <= limit
