"""`muster task artifacts` and `muster artifact`: what they say of moments to come."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import pytest

from cli.artifact_files import _bring
from cli.commands.artifact import _grant_row
from cli.commands.task_artifacts import _row
from cli.failure import CommandFailed
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


class Generous(BaseHTTPRequestHandler):
    """A store that gives a thousand bytes and one."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 1001)

    def log_message(self, *_):
        pass


@pytest.fixture
def store():
    with HTTPServer(("127.0.0.1", 0), Generous) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/file"
        server.shutdown()


def test_a_store_that_gives_more_than_there_is_is_left(store, tmp_path):
    with httpx2.Client() as client, pytest.raises(CommandFailed, match="more than the 1000 bytes"):
        _bring(client, store, "0" * 64, 1000, tmp_path / "file")
    assert not (tmp_path / "file").exists()
