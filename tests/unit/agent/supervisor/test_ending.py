"""To end a great many processes leaves time for others."""

import os
import signal
import subprocess
import time

import pytest

from agent.supervisor import processes
from agent.supervisor.processes import TIDIES, Ending, Process
from plugins.container import engine

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


CHILD_WITHOUT_VARIABLES = "env -i sh -c 'echo runs; exec sleep 60' & wait $!"


def test_what_tidies_up_is_asked_to_end_by_nobody_and_killed_in_time():
    assert engine.TIDIES == TIDIES
    env = {**os.environ, TIDIES: "1"}
    with (
        subprocess.Popen(  # noqa: S603 (our own words)
            ["/bin/sh", "-c", CHILD_WITHOUT_VARIABLES], env=env, stdout=subprocess.PIPE
        ) as tidying,
        subprocess.Popen(["/bin/sleep", "60"]) as other,
    ):
        assert tidying.stdout.readline() == b"runs\n"
        pids = {tidying.pid, other.pid}

        def find():
            living = processes.everything()
            return processes.subtree([living[pid] for pid in pids if pid in living], living)

        kill_at = [time.monotonic() + 3600]
        ending = Ending(find, lambda: kill_at[0])
        assert ending.step() is not None
        assert other.wait(10) == -signal.SIGTERM
        assert ending.step() is not None
        assert len(find()) == 2  # the shell and its child
        kill_at[0] = time.monotonic()
        ending.step()
        assert tidying.wait(10) == -signal.SIGKILL
