"""Files of earlier jobs on their way into a workspace, whoever dies meanwhile."""

import hashlib
import os
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil

from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until

WORDS = b"words\n"


class Store(BaseHTTPRequestHandler):
    """Has one file."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", str(len(WORDS)))
        self.end_headers()
        self.wfile.write(WORDS)

    def log_message(self, *_):
        """Writes nothing."""


@contextmanager
def store():
    """Gives the URL of a store."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def has_called(agent):
    """Tells whether a session has called its supervisor: loop and gRPC have two sockets each."""
    return len(psutil.Process(agent.process.pid).net_connections("unix")) > 4


async def test_files_of_an_order_that_outlives_its_session_are_there(plane, start_agent, data_dir):
    agent = start_agent()
    await until(lambda: agent.supervisor_pid() and plane.beats)
    supervisor = agent.supervisor_pid()
    os.kill(supervisor, signal.SIGSTOP)
    with store() as url:
        file = agent_pb2.ArtifactInput(
            artifact_id="1",
            path="file",
            size=len(WORDS),
            sha256=hashlib.sha256(WORDS).hexdigest(),
            download_url=url,
        )
        lease = plane.assign("cat file", inputs=[file])
        staged = data_dir / "staging" / lease.task.lease_id
        await until(lambda: [each.name for each in staged.glob("*")] == ["file"])
    beats = len(plane.beats)
    await until(lambda: len(plane.beats) > beats + 1)  # by now the order lies in the socket
    agent.process.send_signal(signal.SIGKILL)
    await agent.exit_code()
    agent = start_agent()
    await until(lambda: has_called(agent))
    os.kill(supervisor, signal.SIGCONT)
    await until(lambda: lease.released or lease.whole)
    assert (lease.released, lease.text) == (False, ["words"])
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    await until(lambda: not agent.left())
    assert not list((data_dir / "staging").glob("*"))
