"""`muster task artifacts` and `muster artifact`: what they say of moments to come."""

import time

from cli.commands.artifact import _grant_row
from cli.commands.task_artifacts import _row
from generated.artifact.v1 import artifact_pb2
from generated.task.v1 import task_pb2


def test_an_artifact_says_how_long_it_will_be_kept():
    now = int(time.time())
    kept = task_pb2.Artifact(created_at=now, expire_at=now + 7 * 86_400)
    assert _row(kept)[-1] == "in 6d 23h"
    assert _row(task_pb2.Artifact(created_at=now))[-1] == ""


def test_a_grant_says_how_long_it_will_last():
    ends = int(time.time() + 900) * 1000
    assert "(in 14m" in _grant_row(artifact_pb2.UploadGrant(expires_at=ends))[5]
