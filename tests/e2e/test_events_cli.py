"""`muster events` and what terminals are told as it happens."""

import json
import os
import pty
import sys

import pytest

from tests.e2e.processes import eventually

SCRIPT = ("exec", "--name", "told", "--", "true")


@pytest.fixture(scope="module")
def server(shared):
    server = shared.start_server()
    shared.start_agent(server, "--name", "teller")
    return server


def lines(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_happened_is_listed_and_goes_on_after_a_cursor(shared, server):
    assert shared.cli(*SCRIPT, server=server).returncode == 0
    titles = [line.split("  ")[1] for line in lines(shared.cli("events", server=server))]
    assert "Agent teller registered" in titles
    assert titles[-3:] == ["Task told was submitted", "Task told runs", "Task told succeeded"]
    told = lines(shared.cli("events", "-o", "json", "--about", "task", server=server))
    events = [json.loads(line) for line in told][-3:]
    after = ("--after", events[0]["cursor"])
    rest = lines(shared.cli("events", *after, "-o", "json", server=server))
    assert [json.loads(line) for line in rest] == events[1:]
    last = ("--after", events[-1]["cursor"])
    assert lines(shared.cli("events", *last, server=server)) == []
    ended = ("--type", "job_completed", "--id", events[0]["resource_id"])
    assert len(lines(shared.cli("events", *ended, server=server))) == 1


def test_a_cursor_that_never_was_is_refused(shared, server):
    done = shared.cli("events", "--after", "99999999", server=server)
    assert done.returncode == 1
    assert "beyond the last event" in done.stderr
    assert shared.cli("events", "--after", "1", "--all", server=server).returncode == 2


def test_followers_go_on_through_a_restart_of_the_server(kit):
    server = kit.start_server()
    following = kit.start_cli("events", "-f", "--all", "--about", "task", server=server)
    for name in ("first", "second"):
        assert (
            kit.cli("task", "create", "--name", name, "--", "true", server=server).returncode == 0
        )
        eventually(lambda: f"Task {name} was submitted" in following.said(), within=30)  # noqa: B023
        server.restart()
    assert following.said().count("was submitted") == 2


def on_a_terminal(server, *arguments):
    """Return what a command writes to a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**os.environ, "MUSTER_SERVER": server.grpc}
        command = [sys.executable, "-m", "cli", *arguments]
        os.execve(sys.executable, command, environment)  # noqa: S606 - our own program
    said = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other side has gone
            break
        if not part:
            break
        said += part
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return said.decode()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_exec_tells_on_a_terminal_how_it_goes_and_nothing_to_a_pipe(shared, server):
    said = on_a_terminal(server, "exec", "--", "echo hello; sleep 1")  # to be seen running
    assert "hello" in said
    assert "muster: running on teller" in said
    done = shared.cli("exec", "--", "echo hello", server=server)
    assert (done.stdout, done.stderr) == ("hello\n", "")
