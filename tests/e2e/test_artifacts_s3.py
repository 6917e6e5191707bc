"""Artifacts in S3 with a whole server and an agent: the store stops, breaks off, and lies."""

import hashlib
from contextlib import closing

import pytest

from generated.task.v1 import task_pb2
from tests.counting_proxy import counting_proxy
from tests.e2e.kit import eventually
from tests.e2e.test_examples import standing
from tests.e2e.test_plugins import Plugged
from tests.seaweedfs import BUCKET, seaweedfs

pytestmark = pytest.mark.xdist_group("blobs")  # one S3 is enough

FLOW = """
name: flow
stages:
  - name: up
    jobs:
      - name: leaves
        commands: [head -c 50000000 /dev/urandom > big.bin, sha256sum big.bin]
        artifacts: big.bin
  - name: stop
    jobs:
      - name: asks
        approval: {who: [operator], message: Go on?}
  - name: on
    jobs:
      - name: takes
        take: leaves
        commands: [sha256sum big.bin]
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running


@pytest.fixture
def door(s3):
    with counting_proxy(s3.ports["s3.port"]) as proxy:
        yield proxy


@pytest.fixture
def shop(kit, s3, door, request):
    place = s3.place(request.node.name.partition("[")[0], door.endpoint)
    return Plugged(kit, "--artifact-home", place, env=s3.env)


def objects(s3, prefix):
    with closing(s3.client()) as client:
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        return [each["Key"] for each in found]


def left(shop, run_id):
    """Return the task that leaves the file, its artifact, and what it says of the file."""
    task_id = next(job.task_id for job in shop.run(run_id).jobs if job.name == "leaves")
    task = shop.tasks.GetTask(task_pb2.GetTaskRequest(task_id=task_id)).task
    (artifact,) = shop.json("task", "artifacts", task_id)
    return task, artifact, shop.log(run_id, "leaves")[0].split()[0]


def is_stored(shop, run_id):
    return standing(shop.run(run_id)).get("leaves") == "SUCCESS"


def stored(shop, run_id):
    """Wait until the file is stored."""
    eventually(lambda: is_stored(shop, run_id), 60)


def go_on(shop, run_id):
    eventually(lambda: "asks" in shop.muster("run", "get", run_id))
    shop.muster("run", "approve", run_id, "asks")
    return shop.ended(run_id)


@pytest.mark.parametrize("fault", ["cuts", "stops"])
def test_a_file_arrives_whatever_becomes_of_the_store_meanwhile(shop, s3, door, tmp_path, fault):
    shop.define(FLOW, tmp_path)
    run_id = shop.trigger("flow")
    eventually(lambda: sum(asked.startswith("PUT") for asked in door.asked) >= 2, 60)
    if fault == "stops":
        s3.stop()
        s3.start()
    else:
        for _ in range(3):
            seen = len(door.asked)
            door.cut()
            eventually(lambda seen=seen: len(door.asked) > seen or is_stored(shop, run_id), 60)
    stored(shop, run_id)
    task, artifact, digest = left(shop, run_id)
    assert (task.attempt, artifact["sha256"]) == (1, digest)
    door.cut()
    run = go_on(shop, run_id)
    assert standing(run)["takes"] == "SUCCESS", run
    assert shop.log(run_id, "takes")[0].split()[0] == digest
    shop.muster("task", "artifacts", task.task_id, "--download", str(tmp_path / "down"))
    assert hashlib.sha256((tmp_path / "down" / "big.bin").read_bytes()).hexdigest() == digest


def test_a_file_that_was_changed_in_the_store_is_given_to_nobody(shop, s3, tmp_path):
    shop.define(FLOW, tmp_path)
    run_id = shop.trigger("flow")
    stored(shop, run_id)
    task, artifact, _ = left(shop, run_id)
    (key,) = objects(s3, "test_a_file_that_was_changed")
    with closing(s3.client()) as client:
        client.put_object(Bucket=BUCKET, Key=key, Body=bytes(int(artifact["size"])))
    run = go_on(shop, run_id)
    assert standing(run)["takes"] == "FAILED"
    (taker,) = (job.task_id for job in run.jobs if job.name == "takes")
    failed = shop.tasks.GetTask(task_pb2.GetTaskRequest(task_id=taker)).task
    assert failed.error_message == "big.bin: the store gives other bytes than were stored"
    done = shop.kit.cli(
        "task", "artifacts", task.task_id, "--download", str(tmp_path), server=shop.server
    )
    assert "other bytes than were stored" in done.stderr
    assert not (tmp_path / "big.bin").exists()
