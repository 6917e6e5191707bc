"""To end a great many processes leaves time for others."""

import time

import pytest

from agent.supervisor.processes import Ending, Process

SLOW = 0.05
GONE = Process(2**30, 0, 0, 0, 0)
"""Beyond any pid, so that no signal reaches anybody."""


@pytest.fixture
def start():
    """Begins an end, whose every look takes some time, with a moment to kill at."""

    def find():
        time.sleep(SLOW)
        return {GONE}

    return lambda kill_at: Ending(find, lambda: kill_at)


@pytest.mark.parametrize("seconds_left", [-1.0, 60.0])
def test_after_a_long_look_others_have_their_turn_for_longer(start, seconds_left):
    pause = start(time.monotonic() + seconds_left).step()
    assert 4 * SLOW <= pause <= 1.0


def test_a_pause_ends_when_it_is_time_to_kill(start):
    kill_at = time.monotonic() + 3 * SLOW
    pause = start(kill_at).step()
    assert time.monotonic() + pause <= kill_at + SLOW


def test_a_moment_long_ago_gives_nobody_up_unkilled(start):
    ending = start(time.monotonic() - 3600.0)
    assert ending.step() is not None
    assert not ending.given_up
