"""The short form of what `make chaos-logs` tells at length."""

import pytest

from tests.chaos.log_stories import broken_all_the_time, read_by_many
from tests.e2e.kit import Kit


@pytest.fixture
def kit():
    kit = Kit()
    yield kit
    kit.close()


@pytest.mark.timeout(300)
async def test_a_log_that_is_broken_all_the_time_has_every_line_once(kit):
    broken = broken_all_the_time(kit, 30_000, 6.0, server_kills=1, session_kills=1, stops=1)
    assert await broken == []


@pytest.mark.timeout(300)
async def test_followers_that_come_at_any_moment_each_get_all_of_it(kit):
    assert await read_by_many(kit, 2_000, 2.0, 40) == []
