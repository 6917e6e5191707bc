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
from plugins.sdk.definition import Plugin

COOKIE = "MUSTER_PLUGIN"
"""The variable by which an agent says that it started the plugin."""

STOPPED = 128 + signal.SIGTERM
_WAITING = 256
"""Messages that wait for the agent at most: then the plugin waits too."""

_PIECE = 64 * 1024
"""Bytes that a message carries of what a plugin prints."""


def serve(plugin: Plugin) -> None:
    """Serve a plugin until the agent goes; `plugin.toml` beside the program says what it is."""
    if COOKIE not in os.environ:
        sys.exit(
            "This is a plugin of Muster's: an agent starts it. To try it without one, use "
            "plugins.sdk.harness."
        )
    own = tomllib.loads((Path(sys.argv[0]).resolve().parent / "plugin.toml").read_text("utf-8"))
    starter = os.getppid()
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
        if os.getppid() != starter:  # who is dead
            service.stop.set()
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
            for start in range(0, len(data), _PIECE):
                output = plugin_pb2.Output(data=data[start : start + _PIECE], error=error)
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
        told = _told(self._plugin, task, parameters)
        sys.stdout.flush()
        sys.stderr.flush()
        return plugin_pb2.ExecuteResponse(result=told)


def _told(plugin: Plugin, task: Context, parameters: dict[str, object]) -> plugin_pb2.Result:
    """Does it and returns its result, whatever its author did not think of."""
    try:
        result = plugin.call(task, parameters)
        return plugin_pb2.Result(
            exit_code=result.exit_code, message=result.message, outputs=result.outputs
        )
    except Cancelled:
        return plugin_pb2.Result(exit_code=STOPPED, message="stopped")
    except PluginError as error:
        return plugin_pb2.Result(exit_code=1, message=_text(error))
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return plugin_pb2.Result(exit_code=error.code or 0)
        return plugin_pb2.Result(exit_code=1, message=_text(error.code))
    except BaseException as error:
        traceback.print_exc()
        return plugin_pb2.Result(exit_code=1, message=_text(f"{type(error).__name__}: {error}"))


def _text(words: object) -> str:
    return str(words).encode(errors="replace").decode()
