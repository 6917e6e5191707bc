"""What is made of many measurements."""

import pytest

from bench.numbers import percentile


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1, 100)]
)
def test_a_percentile_is_a_value_that_was_measured(share, expected):
    assert percentile([float(n) for n in range(100, 0, -1)], share) == expected
