"""The kit itself, tried on programs that are small and stubborn."""

import signal
import sys
import textwrap

import psutil
import pytest

from tests.e2e.processes import Launcher, eventually

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("ready pid=%d" % os.getpid(), flush=True)
print("leaking " + " ".join(k for k in os.environ if k.startswith("MUSTER_")), flush=True)
time.sleep(600)
"""


@pytest.fixture
def launcher(tmp_path):
    launcher = Launcher(tmp_path)
    yield launcher
    launcher.end_all()


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


def is_alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_everything_is_ended_also_what_does_not_listen_or_has_left_the_session(
    launcher, monkeypatch
):
    monkeypatch.setenv("MUSTER_LEASE", "1")
    program = launcher.start("stubborn", python(STUBBORN))
    assert program.ready_line() == f"ready pid={program.pid}"
    living = launcher.marked()
    assert len(living) == 2
    assert program.terminate(within=0.2) == -signal.SIGKILL
    launcher.end_all()
    assert launcher.marked() == []
    assert not any(is_alive(process) for process in living)
    assert program.stdout.read_text().splitlines()[1].strip() == "leaking"


def test_a_program_that_ends_before_it_is_ready_shows_why(launcher):
    program = launcher.start("broken", python("raise SystemExit('no such port')"))
    with pytest.raises(RuntimeError, match="no such port"):
        program.ready_line()
    assert program.exit_code == 1


def test_a_command_gives_back_what_it_said(launcher):
    outcome = launcher.run(python("print(input())"), stdin="hello")
    assert (outcome.returncode, outcome.stdout) == (0, "hello\n")


def test_waiting_has_an_end():
    assert eventually(lambda: "answer") == "answer"
    with pytest.raises(TimeoutError):
        eventually(lambda: None, within=0.05)


def test_a_program_can_be_spoken_to_and_listened_to(launcher):
    code = """
    import signal, sys
    def stop(*_):
        print("stopped", file=sys.stderr, flush=True)
        sys.exit(7)
    signal.signal(signal.SIGUSR1, stop)
    print("listening", flush=True)
    signal.pause()
    """
    program = launcher.start("listener", python(code))
    eventually(lambda: program.said() == "listening\n")
    assert program.exit_code is None
    program.signal(signal.SIGUSR1)
    assert (program.wait(), program.complained()) == (7, "stopped\n")
