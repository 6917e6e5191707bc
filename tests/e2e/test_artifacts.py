"""Artifacts and checkouts: files that go from job to job, to people, and from a repository."""

import base64
import hashlib
import json
import subprocess

import httpx2
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


@pytest.fixture
def door(shop):
    """Return a function that calls the HTTP door of uploads with a grant."""
    made = shop.json("artifact", "grant", "create", "camera-1", "--max-bytes", "30000000")

    def call(path, told, key=made["key"]):
        return httpx2.post(
            f"http://{shop.server.http}{path}",
            json=told,
            headers={"authorization": f"Bearer {key}"},
            timeout=30,
        )

    return call


def test_a_producer_hands_in_files_with_a_grant(shop, door):
    data = bytes(20_000_000)
    told = {
        "name": "clip",
        "path": "day/clip.mp4",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    begun = door("/uploads", told)
    assert begun.status_code == 201, begun.text
    first, second = begun.json()["parts"]
    size = begun.json()["part_size"]
    etag = httpx2.put(first["url"], content=data[:size]).headers["etag"]
    again = door("/uploads", told).json()  # the producer was started again
    assert [part["number"] for part in again["parts"]] == [2]
    done = f"/uploads/{again['artifact_id']}/complete"
    early = door(done, {"parts": [{"number": 1, "etag": etag}]})
    assert (early.status_code, "has no part 2" in early.text) == (409, True)
    assert httpx2.put(second["url"], content=data).status_code == 400
    last = httpx2.put(second["url"], content=data[size:]).headers["etag"]
    parts = [{"number": 1, "etag": etag}, {"number": 2, "etag": last}]
    assert door(done, {"parts": parts}).status_code == 200
    assert door(done, {"parts": parts}).status_code == 200
    (listed,) = shop.json("artifact", "list")
    assert (listed["handed_in_by"], listed["path"]) == ("camera-1", "day/clip.mp4")
    (grant,) = shop.json("artifact", "grant", "list")
    assert grant["used_bytes"] == "20000000"
    too_much = door("/uploads", {**told, "path": "two"})
    assert (too_much.status_code, "20000000 are used" in too_much.text) == (413, True)
    assert door("/uploads", {**told, "path": "../x"}).status_code == 400
    assert door("/uploads", told, key="muster_upload_x").status_code == 401
    assert door("/uploads", []).status_code == 400
    shop.muster("artifact", "grant", "revoke", grant["grant_id"])
    assert door("/uploads", told).status_code == 401


def test_a_file_that_is_not_what_was_announced_is_never_listed(shop, door):
    told = {"name": "x", "path": "x", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    begun = door("/uploads", told).json()
    etag = httpx2.put(begun["parts"][0]["url"], content=b"abd").headers["etag"]
    done = door(
        f"/uploads/{begun['artifact_id']}/complete", {"parts": [{"number": 1, "etag": etag}]}
    )
    assert done.status_code == 409
    assert "was announced" in done.text
    assert shop.json("artifact", "list") == []
    begun = door("/uploads", told).json()
    etag = httpx2.put(begun["parts"][0]["url"], content=b"abc").headers["etag"]
    done = door(
        f"/uploads/{begun['artifact_id']}/complete", {"parts": [{"number": 1, "etag": etag}]}
    )
    assert done.status_code == 200


def test_urls_of_the_own_door_cannot_be_made_up(shop, door, tmp_path):
    (tmp_path / "secret").write_text("s")
    told = {"name": "x", "path": "x", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    url = door("/uploads", told).json()["parts"][0]["url"]
    base, _, token = url.rpartition("/")
    body, _, signature = token.partition(".")
    for bad in (f"{body}.", f"{body}x.{signature}", f"{body}.{signature[:-4]}AAAA", "x", "x."):
        assert httpx2.put(f"{base}/{bad}", content=b"abc").status_code == 403, bad
    assert httpx2.get(url.replace("/parts/", "/files/")).status_code == 403
    claims = base64.urlsafe_b64encode(json.dumps({"k": "get", "b": "/etc/passwd"}).encode())
    forged = claims.decode().rstrip("=")
    files = base.replace("/parts", "/files")
    assert httpx2.get(f"{files}/{forged}.{signature}").status_code == 403
