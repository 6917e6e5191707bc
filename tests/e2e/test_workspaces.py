"""What stays of a workspace: on the agent for a while, or in the store as an archive."""

import os
import tarfile
import time
from pathlib import Path

import pytest

from tests.e2e.kit import eventually
from tests.e2e.test_examples import standing
from tests.e2e.test_plugins import Plugged

FLOW = """
name: kept
stages:
  - name: all
    parallel: true
    jobs:
      - name: whole
        commands: &make
          - mkdir -p out .cache
          - echo result > out/result.txt
          - echo cached > .cache/x
          - ln -s /etc/passwd out/link
        artifacts: {name: workspace, files: "**", archive: true}
      - name: tidy
        commands: *make
        artifacts: {files: [out, .cache], archive: true, dot_files: false}
      - name: broken
        commands: [echo why > report.txt, exit 3]
        allow_failure: true
        keep_workspace: true
        artifacts: {files: "**", archive: true, on_failure: true}
"""


@pytest.fixture
def shop(kit):
    return Plugged(kit)


def archive(shop, run, job, folder):
    """Return what a job's archive holds, by path."""
    (task,) = (each.task_id for each in run.jobs if each.name == job)
    (path,) = shop.muster("task", "artifacts", task, "--download", str(folder / job)).splitlines()
    with tarfile.open(path) as packed:
        return Path(path).name, {
            each.name: packed.extractfile(each).read().decode() for each in packed
        }


def test_a_workspace_is_archived_with_and_without_dot_files(shop, tmp_path):
    shop.define(FLOW, tmp_path)
    run = shop.ended(shop.trigger("kept"))
    assert standing(run) == {"whole": "SUCCESS", "tidy": "SUCCESS", "broken": "FAILED"}
    result = {"out/result.txt": "result\n"}
    assert archive(shop, run, "whole", tmp_path) == (
        "workspace.tar.gz",
        {**result, ".cache/x": "cached\n"},
    )
    assert archive(shop, run, "tidy", tmp_path) == ("tidy.tar.gz", result)
    assert archive(shop, run, "broken", tmp_path) == ("broken.tar.gz", {"report.txt": "why\n"})
    assert shop.log(run.run_id, "whole") == [
        "muster: artifact workspace: out/link is no plain file and is left out"
    ]
    (kept,) = (shop.agent.data_dir / "kept").iterdir()
    assert (kept / "report.txt").read_text() == "why\n"


def test_what_a_single_task_leaves_is_asked_for_by_options(shop, tmp_path):
    options = ("--artifact", "*.txt", "--artifact", "logs=out", "--keep-workspace")
    script = "mkdir out; echo a > a.txt; echo b > out/b.log"
    shop.muster("exec", *options, "--name", "leaves", "--", script)
    (task,) = shop.json("task", "list")
    found = {each["name"]: each["path"] for each in shop.json("task", "artifacts", task["task_id"])}
    assert found == {"files": "a.txt", "logs": "out/b.log"}
    (kept,) = (shop.agent.data_dir / "kept").iterdir()
    assert (kept / "out" / "b.log").read_text() == "b\n"


def test_kept_workspaces_go_when_they_are_old(kit):
    server = kit.start_server()
    agent = kit.start_agent(server, "--workspace-keep-days", "2")
    folder = agent.data_dir / "kept"
    done = kit.cli("exec", "--keep-workspace", "--", "echo old > file", server=server)
    (old,) = folder.iterdir()
    assert str(old) in done.stderr
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    kit.cli("exec", "--keep-workspace", "--", "echo new > file", server=server)
    eventually(lambda: not old.exists())
    (new,) = folder.iterdir()
    assert (new / "file").read_text() == "new\n"
