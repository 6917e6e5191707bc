"""Pipes that a task leaves behind: whether somebody may still hold them is known."""

import os
import signal

import pytest

from agent.spool import AttemptFolder
from agent.supervisor.limits import Limits
from agent.supervisor.loop import Loop
from agent.supervisor.masking import Mask
from agent.supervisor.output import OutputWriter, Pump


@pytest.fixture
def loop():
    """A loop, and the way back to signals as they were."""
    yield Loop()
    signal.set_wakeup_fd(-1)


@pytest.mark.parametrize("held", [False, True])
def test_only_a_pipe_that_somebody_still_holds_is_cut_short(loop, tmp_path, held):
    end, beginning = os.pipe2(os.O_NONBLOCK)
    writer = OutputWriter(AttemptFolder(tmp_path), Limits(), lambda: None)
    pump = Pump(loop, {1: end}, writer, Mask([]))
    if not held:
        os.close(beginning)
    pump.finish(0.0 if held else 60.0, loop.end)
    loop.run()
    assert pump.cut_short == held
    if held:
        os.close(beginning)
