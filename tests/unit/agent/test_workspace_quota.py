"""What a task's workspace may take of the disk."""

import os

import pytest

from agent.workspace_quota import holds_more
from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until

MIB = 1 << 20


@pytest.fixture
def tree(tmp_path):
    """A folder with 3 MiB, an outside that must not count, and names that count nothing."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(os.urandom(9 * MIB))
    folder = tmp_path / "workspace"
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "deep" / "deeper" / "file").write_bytes(os.urandom(3 * MIB))
    for number in range(9):
        (folder / f"name-{number}").hardlink_to(folder / "deep" / "deeper" / "file")
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    with (folder / "sparse").open("wb") as file:
        file.truncate(1024 * MIB)
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(("mib", "more"), [(2, True), (4, False)])
def test_what_a_folder_takes_of_the_disk_counts_once(tree, mib, more):
    assert holds_more(tree, mib * MIB) is more


def test_a_folder_that_is_gone_holds_nothing(tmp_path):
    assert not holds_more(tmp_path / "gone", 0)


async def test_a_task_that_outgrows_its_workspace_fails(plane, start_agent, data_dir):
    agent = start_agent("--workspace-quota", "3")
    large = plane.assign("head -c 8M /dev/urandom > file", "sleep 600")
    small = plane.assign("head -c 1M /dev/urandom > file", "echo fits")
    await until(lambda: large.whole and small.whole)
    assert small.end.status == task_pb2.TASK_STATUS_SUCCESS
    assert large.end.status == task_pb2.TASK_STATUS_FAILED
    assert large.end.failure == agent_pb2.FAILURE_CLASS_TASK
    assert large.end.error_message == (
        "the workspace holds more than 3 MiB, which is what this host gives each task"
        " (--workspace-quota)"
    )
    await until(lambda: not agent.left())
