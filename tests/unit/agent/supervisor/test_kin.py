"""Descendants are found, however often strangers were passed over before."""

import os
import subprocess
import sys

import pytest

from agent.supervisor.processes import Kin

FAMILY = """
import os, sys
if os.fork():
    sys.stdin.read()
else:
    os.setsid()
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def family():
    """A child and the pid of a grandchild in a session of its own."""
    with subprocess.Popen(  # noqa: S603 - our own text
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        yield child, int(child.stdout.readline())
        child.stdin.close()


def test_strangers_are_not_looked_at_again():
    kin = Kin()
    assert os.getppid() in kin.living()
    assert os.getppid() not in kin.living()
    assert os.getpid() in kin.living()


def test_who_is_born_after_the_first_look_is_found():
    kin = Kin()
    kin.living()
    with subprocess.Popen(["/bin/sleep", "60"]) as late:
        assert late.pid in kin.living()
        late.kill()


def test_descendants_stay_found(family):
    child, grandchild = family
    kin = Kin()
    for _ in range(3):
        living = kin.living()
        assert living[child.pid].parent == os.getpid()
        assert living[grandchild].parent == child.pid
        assert living[grandchild].session == grandchild


def test_who_has_ended_is_not_found(family):
    child, _ = family
    kin = Kin()
    assert child.pid in kin.living()
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.pid not in kin.living()
