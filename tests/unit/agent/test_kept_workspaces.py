"""Workspaces that are kept on request: where they are, and when they go."""

import os
import shutil
import signal
import time
from datetime import timedelta

import pytest

from agent import kept_workspaces
from agent.executor import Identity
from agent.kept_workspaces import KeptWorkspaces
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until, waits

DAY = 24 * 3600
PLENTY = 0


@pytest.fixture
def make(tmp_path):
    """Keeps a workspace with a file in it, as if so many days ago, and returns where it is."""

    def keep(task, days=0.0):
        workspace = tmp_path / "spool" / task
        workspace.mkdir(parents=True)
        (workspace / "file").write_text(task)
        kept = KeptWorkspaces(tmp_path, timedelta(days=7), PLENTY)
        assert "is kept in" in kept.keep(Identity(task, task, 1, 1.0, False), workspace)
        path = tmp_path / "kept" / f"{task}-1"
        os.utime(path, (time.time() - days * DAY,) * 2)
        return path

    return keep


async def swept(tmp_path, spare=PLENTY):
    await KeptWorkspaces(tmp_path, timedelta(days=7), spare).sweep(time.time())
    return sorted(path.name for path in (tmp_path / "kept").iterdir())


@pytest.mark.parametrize(("code", "status"), [(0, "SUCCESS"), (3, "FAILED")])
async def test_a_workspace_is_kept_on_request(plane, start_agent, data_dir, code, status):
    agent = start_agent()
    lease = plane.assign("echo made > file", f"exit {code}", keep_workspace=True)
    await until(lambda: lease.whole)
    assert lease.end.status == getattr(task_pb2, f"TASK_STATUS_{status}")
    (kept,) = (data_dir / "kept").iterdir()
    assert lease.text == [f"muster: the workspace is kept in {kept}"]
    assert (kept / "file").read_text() == "made\n"
    await until(lambda: not agent.left())


async def test_a_workspace_is_gone_without_a_request(plane, start_agent, data_dir):
    agent = start_agent()
    lease = plane.assign("echo made > file")
    await until(lambda: lease.whole)
    await until(lambda: not agent.left())
    assert not (data_dir / "kept").exists()
    assert lease.text == []


async def test_the_next_session_keeps_it_too(plane, start_agent, data_dir, gate):
    agent = start_agent()
    lease = plane.assign("echo made > file", waits(gate), keep_workspace=True)
    await until(lambda: lease.statuses)
    agent.process.send_signal(signal.SIGKILL)
    await agent.exit_code()
    gate.touch()
    start_agent()
    await until(lambda: lease.whole)
    (kept,) = (data_dir / "kept").iterdir()
    assert (kept / "file").read_text() == "made\n"


async def test_a_link_in_its_place_is_not_kept(plane, start_agent, data_dir):
    start_agent()
    lease = plane.assign('cd /; rm -r "$HOME"; ln -s /etc "$HOME"', keep_workspace=True)
    await until(lambda: lease.whole)
    assert lease.text == ["muster: the workspace is not kept: something else is in its place"]
    assert not list((data_dir / "kept").iterdir())


async def test_the_old_ones_go(tmp_path, make):
    make("old", days=7.01)
    make("young", days=6.9)
    assert await swept(tmp_path) == ["young-1"]


async def test_the_oldest_go_while_the_disk_is_short(tmp_path, make, monkeypatch):
    for number in range(4):
        make(f"task{number}", days=number)
    monkeypatch.setattr(
        kept_workspaces, "has_room", lambda folder, _: len(list(folder.iterdir())) <= 2
    )
    assert await swept(tmp_path, spare=1) == ["task0-1", "task1-1"]


async def test_a_deletion_follows_no_link(tmp_path, make):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    outside.chmod(0o500)
    path = make("old", days=8)
    (path / "link").symlink_to(outside)
    (path / "deep").mkdir()
    (path / "deep" / "link").symlink_to(outside / "file")
    os.utime(path, (0, 0))
    assert await swept(tmp_path) == []
    assert (outside / "file").exists()
    assert outside.stat().st_mode & 0o777 == 0o500


async def test_a_link_among_them_is_deleted_and_not_followed(tmp_path, make):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    shutil.rmtree(make("old", days=8))
    link = tmp_path / "kept" / "old-1"
    link.symlink_to(outside)
    os.utime(link, (0, 0), follow_symlinks=False)
    await swept(tmp_path)
    assert (outside / "file").exists()


async def test_what_nobody_may_enter_and_what_is_very_deep_goes_too(tmp_path, make):
    path = make("old", days=8)
    folder = os.open(path, os.O_RDONLY)
    for _ in range(3000):  # deeper than any path may be long
        os.mkdir("d" * 20, dir_fd=folder)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    (path / "closed").mkdir()
    (path / "closed" / "file").touch()
    (path / "closed").chmod(0)
    path.chmod(0o500)
    os.utime(path, (0, 0))
    assert await swept(tmp_path) == []


async def test_a_deletion_that_was_cut_short_goes_on(tmp_path, make):
    path = make("old")
    path.rename(path.with_name(".trash-old-1"))
    assert await swept(tmp_path) == []
