from hypothesis import given
from hypothesis import strategies as st

from server.domain.priority import PRIORITIES, PRIORITY_DEFAULT, sort_key

MINUTE = 60_000


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 10_000 * MINUTE))
def test_each_step_of_priority_is_worth_ten_minutes_of_waiting(one, other, later):
    overtakes = sort_key(later, other) < sort_key(0, one)
    assert overtakes is (later < (other - one) * 10 * MINUTE)


def test_a_word_is_a_number():
    assert PRIORITIES == {"high": 8, "normal": PRIORITY_DEFAULT, "low": 2}
