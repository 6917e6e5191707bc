"""Artifacts and checkouts: files that go from job to job, to people, and from a repository."""

import hashlib
import json
import subprocess

import pytest

from generated.pipeline.v1 import pipeline_pb2
from generated.task.v1 import task_pb2
from tests.e2e.kit import eventually
from tests.e2e.test_examples import standing
from tests.e2e.test_plugins import Plugged

FLOW = """
name: flow
stages:
  - name: build
    parallel: true
    jobs:
      - name: build
        matrix: {os: [linux, mac]}
        commands:
          - mkdir -p out/deep .cache
          - echo "for $MATRIX_OS" > out/$MATRIX_OS.txt
          - head -c 100000 /dev/zero > out/deep/$MATRIX_OS.bin
          - ln -s /etc/passwd out/link-$MATRIX_OS
          - touch out/empty-$MATRIX_OS
        artifacts: {name: binaries, files: [out, "*.log"], keep: 7d}
      - name: fails
        commands: [echo why > report.txt, exit 3]
        allow_failure: true
        artifacts: {files: report.txt, on_failure: true}
  - name: package
    jobs:
      - name: package
        take: [{job: build, into: dist}, fails]
        commands:
          - find . -type f | sort
          - cat dist/out/linux.txt report.txt
"""


@pytest.fixture
def shop(kit):
    return Plugged(kit)


def test_files_go_from_job_to_job_and_to_people(shop, tmp_path):
    shop.define(FLOW, tmp_path)
    run = shop.ended(shop.trigger("flow"))
    assert run.status == pipeline_pb2.PIPELINE_STATUS_PARTIAL, standing(run)
    assert shop.log(run.run_id, "package") == [
        "./dist/out/deep/linux.bin",
        "./dist/out/deep/mac.bin",
        "./dist/out/empty-linux",
        "./dist/out/empty-mac",
        "./dist/out/linux.txt",
        "./dist/out/mac.txt",
        "./report.txt",
        "for linux",
        "why",
    ]
    log = shop.log(run.run_id, "build (linux)")
    assert log == [
        "muster: artifact binaries: out/link-linux is no plain file and is left out",
        "muster: artifact binaries: nothing in the workspace fits *.log",
    ]
    (task_id,) = (job.task_id for job in run.jobs if job.name == "build (linux)")
    listed = shop.json("task", "artifacts", task_id)
    assert [(each["name"], each["path"], int(each["size"])) for each in listed] == [
        ("binaries", "out/deep/linux.bin", 100_000),
        ("binaries", "out/empty-linux", 0),
        ("binaries", "out/linux.txt", 10),
    ]
    assert all(int(each["expire_at"]) for each in listed)
    folder = tmp_path / "downloads"
    shop.muster("task", "artifacts", task_id, "--download", str(folder))
    assert (folder / "out/linux.txt").read_text() == "for linux\n"
    assert (folder / "out/deep/linux.bin").stat().st_size == 100_000
    of_run = shop.json("artifact", "list", "--run", run.run_id)
    assert len(of_run) == 7
    one = of_run[0]["artifact_id"]
    shop.muster("artifact", "delete", one)
    assert "There is no artifact" in shop.kit.cli("artifact", "get", one, server=shop.server).stderr


def test_an_upload_goes_on_when_session_and_server_are_killed(shop, tmp_path):
    text = """
name: big
stages:
  - name: s
    jobs:
      - name: leaves
        commands: [head -c 200000000 /dev/urandom > big.bin, sha256sum big.bin]
        artifacts: big.bin
"""
    shop.define(text, tmp_path)
    run_id = shop.trigger("big")
    uploads = shop.server.data_dir / "artifacts" / ".uploads"
    eventually(lambda: list(uploads.glob("*/1.json")), 60)
    shop.agent.kill9()
    shop.server.kill9()
    shop.server.start()
    shop.agent.start()
    run = shop.ended(run_id)
    assert standing(run) == {"leaves": "SUCCESS"}
    (task_id,) = (job.task_id for job in run.jobs)
    task = shop.tasks.GetTask(task_pb2.GetTaskRequest(task_id=task_id)).task
    assert task.attempt == 1
    (listed,) = shop.json("task", "artifacts", task_id)
    assert listed["sha256"] == shop.log(run_id, "leaves")[0].split()[0]
    (kept,) = (p for p in uploads.parent.rglob("big.bin") if p.is_file())
    with kept.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == listed["sha256"]
    assert list(uploads.iterdir()) == []


def test_a_limit_fails_the_job_with_the_reason(kit, tmp_path):
    shop = Plugged(kit, "--artifact-limit", "1000")
    shop.define(FLOW, tmp_path)
    run = shop.ended(shop.trigger("flow"))
    assert run.status == pipeline_pb2.PIPELINE_STATUS_FAILED
    (task_id,) = (job.task_id for job in run.jobs if job.name == "build (linux)")
    task = shop.tasks.GetTask(task_pb2.GetTaskRequest(task_id=task_id)).task
    assert task.error_message == (
        "artifact binaries: out/deep/linux.bin: "
        "out/deep/linux.bin has 100000 bytes; this server takes 1000 a file"
    )


def git(folder, *words):
    done = subprocess.run(  # noqa: S603
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words],  # noqa: S607
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository with two commits on main and one on dev; return it and the first commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    (folder / "file.txt").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First words")
    first = git(folder, "rev-parse", "HEAD")
    (folder / "file.txt").write_text("two\n")
    git(folder, "commit", "-q", "-a", "-m", "Second words")
    git(folder, "checkout", "-q", "-b", "dev")
    (folder / "file.txt").write_text("dev\n")
    git(folder, "commit", "-q", "-a", "-m", "On dev")
    return folder, first


def test_the_repository_is_checked_out(shop, tmp_path, repository):
    folder, first = repository
    text = f"""
name: sources
repo_url: file://{folder}
stages:
  - name: s
    parallel: true
    jobs:
      - {{name: reads, commands: [cat file.txt, git rev-parse HEAD]}}
      - {{name: alone, checkout: false, commands: [ls -A]}}
"""
    shop.define(text, tmp_path)
    run = shop.ended(shop.trigger("sources"))
    assert standing(run) == {"reads": "SUCCESS", "alone": "SUCCESS"}
    second = git(folder, "rev-parse", "main")
    assert shop.log(run.run_id, "reads") == [f"{second[:12]} Second words", "two", second]
    assert shop.log(run.run_id, "alone") == []
    run = shop.ended(shop.trigger("sources", "--branch", "dev"))
    assert shop.log(run.run_id, "reads")[1] == "dev"
    run = shop.ended(shop.trigger("sources", "--commit", first))
    assert shop.log(run.run_id, "reads") == [f"{first[:12]} First words", "one", first]
    run = shop.ended(shop.trigger("sources", "--branch", "nowhere"))
    assert standing(run)["reads"] == "FAILED"
    assert "couldn't find remote ref" in " ".join(shop.log(run.run_id, "reads"))
    assert json.dumps(shop.log(run.run_id, "reads")).count("muster: step checkout") == 1
