"""Confined tasks, by real processes: whom they are, what they see, what they cannot get back."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user")
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="there is no bwrap")
ABOUT = "grep -E '^(NoNewPrivs|CapEff|Groups)' /proc/self/status"


@pytest.fixture
def open_dir():
    """A data directory that other users can reach, outside of /tmp."""
    parent = Path(tempfile.mkdtemp(prefix="confined-", dir="/var/tmp"))
    parent.chmod(0o711)
    yield parent / "agent"
    shutil.rmtree(parent, ignore_errors=True)


async def told(plane, *commands, **fields):
    lease = plane.assign(*commands, **fields)
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS, (lease.text, lease.end)
    return lease.text


async def test_no_program_of_a_task_gains_privileges(plane, start_agent):
    start_agent("--no-new-privileges")
    assert "NoNewPrivs:\t1" in await told(plane, ABOUT)


async def test_without_options_a_task_is_as_free_as_its_agent(plane, start_agent):
    start_agent()
    assert "NoNewPrivs:\t0" in await told(plane, ABOUT)


@as_root
async def test_a_hardened_agents_tasks_are_another_user(plane, start_agent, open_dir):
    start_agent("--hardened", folder=open_dir)
    lines = await told(
        plane,
        "id -un",
        ABOUT,
        'echo kept > "$HOME/file" && cat "$HOME/file"',
        f"ls {open_dir} 2>&1 || echo no list",
        f"cat {open_dir}/agent_id 2>&1 || echo no id",
        'touch "$TMPDIR/x" && ls "$TMPDIR"',
        'test -w "$0" && echo could change the script || true',
        workspace="sub/dir",
    )
    assert lines[0] == "nobody"
    assert {"NoNewPrivs:\t1", "CapEff:\t0000000000000000"} <= set(lines)
    assert "Groups:\t" in [line.rstrip(" ") for line in lines]
    assert {"kept", "no list", "x"} <= set(lines)


@as_root
async def test_what_is_the_agents_own_stays_closed(plane, start_agent, open_dir):
    open_dir.mkdir(mode=0o700)
    (open_dir / "credential").touch(mode=0o600)
    start_agent("--hardened", folder=open_dir)
    lines = await told(
        plane,
        f"cat {open_dir}/credential 2>/dev/null || echo no credential",
        f"ls {open_dir}/spool 2>/dev/null || echo no spool",
        f"test -w {open_dir}/supervisor.sock && echo socket || echo no socket",
    )
    assert lines == ["no credential", "no spool", "no socket"]


@as_root
async def test_each_task_has_a_tmp_of_its_own(plane, start_agent, open_dir, tmp_path):
    start_agent("--private-tmp", folder=open_dir)
    name = f"left-{tmp_path.name}"
    assert await told(plane, f"touch /tmp/{name} && ls /tmp") == [name]
    assert await told(plane, "ls /tmp") == []
    assert not os.path.exists(f"/tmp/{name}")  # noqa: S108, PTH110, ASYNC240


@as_root
async def test_folders_of_confined_tasks_are_removed(plane, start_agent, open_dir):
    agent = start_agent("--hardened", folder=open_dir)
    for _ in range(3):
        await told(plane, "mkdir -p a/b && touch a/b/c && chmod 0 a/b")
    await until(lambda: agent.left() == [])


@needs_bubblewrap
async def test_a_sandbox_shows_the_host_and_lets_nothing_be_changed(plane, start_agent, open_dir):
    start_agent("--sandbox", "bubblewrap", "--no-new-privileges", folder=open_dir)
    lines = await told(
        plane,
        "touch /usr/x 2>/dev/null || echo cannot write",
        'echo kept > "$HOME/file" && cat "$HOME/file"',
        "test $(ls -d /proc/[0-9]* | wc -l) -lt 8 && echo few processes",
        f"ls {open_dir}/agent_id 2>/dev/null || echo hidden",
    )
    assert lines == ["cannot write", "kept", "few processes", "hidden"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--task-user", "nobody-at-all"), "there is no user" if os.geteuid() == 0 else "root"),
        (("--task-user", "root"), "root"),
        (("--allow-file", "nowhere.toml"), "nowhere.toml"),
        (("--private-tmp",), "would hide --data-dir" if os.geteuid() == 0 else "root"),
    ],
)
async def test_an_agent_that_cannot_confine_says_so_at_its_start(start_agent, flags, why):
    agent = start_agent(*flags)
    assert await agent.exit_code() == 1
    assert why in agent.log.read_text()


async def test_what_the_host_does_not_allow_is_not_started(plane, start_agent, tmp_path):
    file = tmp_path / "allow.toml"
    file.write_text('commands = ["echo *"]\n')
    start_agent("--allow-file", str(file))
    assert await told(plane, "echo fine") == ["fine"]
    lease = plane.assign(f"touch {tmp_path}/ran")
    await until(lambda: lease.end)
    assert lease.end.status == task_pb2.TASK_STATUS_FAILED
    assert "does not allow it" in lease.end.error_message
    assert not (tmp_path / "ran").exists()
