"""Serves a plugin to the agent that started it."""

import json
import os
import queue
import signal
import sys
import threading
import tomllib
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from generated.plugin.v1 import plugin_pb2, plugin_pb2_grpc
from plugins.sdk.context import Cancelled, Context, PluginError
from plugins.sdk.definition import Plugin, Result

COOKIE = "MUSTER_PLUGIN"
"""The variable by which an agent says that it started the plugin."""

STOPPED = 128 + signal.SIGTERM
_WAITING = 256
"""Messages that wait for the agent at most: then the plugin waits too."""


def serve(plugin: Plugin) -> None:
    """Serve a plugin until the agent goes; `plugin.toml` beside the program says what it is."""
    if COOKIE not in os.environ:
        sys.exit(
            "This is a plugin of Muster's: an agent starts it. To try it without one, use "
            "plugins.sdk.harness."
        )
    own = tomllib.loads((Path(sys.argv[0]).resolve().parent / "plugin.toml").read_text("utf-8"))
    service = _Service(plugin, own["id"], own["version"])
    server = grpc.server(ThreadPoolExecutor(8))
    plugin_pb2_grpc.add_PluginServiceServicer_to_server(service, server)
    socket = f"{os.environ.get('PLUGIN_UNIX_SOCKET_DIR', '/tmp')}/{os.getpid()}.sock"  # noqa: S108
    if not server.add_insecure_port(f"unix:{socket}"):
        sys.exit(f"cannot serve on {socket}")
    gone = threading.Event()

    def stop(*_: object) -> None:
        service.stop.set()
        gone.set()

    signal.signal(signal.SIGTERM, stop)
    server.start()
    print(f"1|1|unix|{socket}|grpc", flush=True)  # noqa: T201 (the handshake)
    while not gone.wait(1.0):
        if os.getppid() == 1:  # whoever started it is dead
            break
    service.done.wait(60.0)
    server.stop(1.0).wait()


class _Service(plugin_pb2_grpc.PluginServiceServicer):
    def __init__(self, plugin: Plugin, id_: str, version: str) -> None:
        self._plugin = plugin
        self._id = id_
        self._version = version
        self.stop = threading.Event()
        self.done = threading.Event()
        self.done.set()

    def Describe(  # noqa: N802 (the name in the proto)
        self, request: plugin_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> plugin_pb2.DescribeResponse:
        parameters = json.dumps(self._plugin.parameters)
        return plugin_pb2.DescribeResponse(
            plugin_id=self._id, version=self._version, parameters=parameters
        )

    def Validate(  # noqa: N802 (the name in the proto)
        self, request: plugin_pb2.ValidateRequest, context: grpc.ServicerContext
    ) -> plugin_pb2.ValidateResponse:
        # The agent has compared them with the schema in plugin.toml, which is the same.
        return plugin_pb2.ValidateResponse()

    def Execute(  # noqa: N802 (the name in the proto)
        self, request: plugin_pb2.ExecuteRequest, context: grpc.ServicerContext
    ) -> Iterator[plugin_pb2.ExecuteResponse]:
        said: queue.Queue[plugin_pb2.ExecuteResponse] = queue.Queue(_WAITING)

        def write(data: bytes, error: bool) -> None:
            output = plugin_pb2.Output(data=data, error=error)
            said.put(plugin_pb2.ExecuteResponse(output=output))

        def progress(done: float, message: str) -> None:
            step = plugin_pb2.Progress(done=done, message=message)
            said.put(plugin_pb2.ExecuteResponse(progress=step))

        task = Context(Path(request.workspace), dict(request.env), write, progress, self.stop)
        self.done.clear()
        worker = threading.Thread(
            target=lambda: said.put(self._run(task, json.loads(request.parameters))), daemon=True
        )
        worker.start()
        try:
            while True:
                message = said.get()
                yield message
                if message.HasField("result"):
                    return
        finally:
            self.done.set()

    def Cancel(  # noqa: N802 (the name in the proto)
        self, request: plugin_pb2.CancelRequest, context: grpc.ServicerContext
    ) -> plugin_pb2.CancelResponse:
        self.stop.set()
        return plugin_pb2.CancelResponse()

    def _run(self, task: Context, parameters: dict[str, object]) -> plugin_pb2.ExecuteResponse:
        result = _result(self._plugin, task, parameters)
        sys.stdout.flush()
        sys.stderr.flush()
        told = plugin_pb2.Result(
            exit_code=result.exit_code, message=result.message, outputs=result.outputs
        )
        return plugin_pb2.ExecuteResponse(result=told)


def _result(plugin: Plugin, task: Context, parameters: dict[str, object]) -> Result:
    try:
        return plugin.call(task, parameters)
    except Cancelled:
        return Result(STOPPED, "stopped")
    except PluginError as error:
        return Result(1, str(error))
    except Exception as error:  # whatever its author did not think of
        traceback.print_exc()
        return Result(1, f"{type(error).__name__}: {error}")
