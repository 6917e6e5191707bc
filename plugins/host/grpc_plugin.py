"""A plugin that is a gRPC server: `plugin.v1.PluginService`, on a socket of its own."""

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import grpc

from generated.plugin.v1 import plugin_pb2, plugin_pb2_grpc
from plugins.host.children import Children, exit_code
from plugins.host.step import StepFailed
from plugins.package.manifest import Manifest

COOKIE = ("MUSTER_PLUGIN", "9d9f7bd0c2e64a1c8f5e3b1d6a7c4e20")
"""Tells a plugin that an agent started it; no secret."""

HANDSHAKE_SECONDS = 10.0
CALL_SECONDS = 10.0
GOODBYE_SECONDS = 5.0
"""How long a plugin may take to end once it has given its result."""

_LONGEST_HANDSHAKE = 4096
_LONGEST_SOCKET = 100
_MESSAGE_BYTES = 4 * 1024 * 1024
_PROGRESS_SECONDS = 1.0


def run(
    program: Sequence[str], manifest: Manifest, parameters: Mapping[str, Any], children: Children
) -> int:
    """Runs a plugin and returns its exit code.

    Raises:
        StepFailed: It died, does not speak the protocol, or refuses the parameters.
    """
    with _socket_folder() as folder:
        environment = {
            **os.environ,
            COOKIE[0]: COOKIE[1],
            "PLUGIN_PROTOCOL_VERSIONS": "1",
            "PLUGIN_UNIX_SOCKET_DIR": folder,
        }
        process = children.start(program, environment, piped=True)
        try:
            return _Conversation(process, folder).hold(manifest, parameters, children)
        finally:
            children.on_stop = None
            _end(process)


class _Conversation:
    def __init__(self, process: "subprocess.Popen[bytes]", folder: str) -> None:
        self._process = process
        self._folder = folder

    def hold(self, manifest: Manifest, parameters: Mapping[str, Any], children: Children) -> int:
        socket = self._handshake()
        options = [("grpc.max_receive_message_length", _MESSAGE_BYTES)]
        with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
            stub = plugin_pb2_grpc.PluginServiceStub(channel)
            try:
                self._check(stub, manifest, json.dumps(parameters))
                return self._execute(stub, json.dumps(parameters), children)
            except grpc.RpcError as error:
                raise StepFailed(self._why(error)) from error

    def _handshake(self) -> str:
        """Returns the socket that the plugin serves; what it prints besides is its output."""
        pipe = self._process.stdout
        if pipe is None:
            raise AssertionError("started with a pipe")
        line = self._first_line(pipe)
        words = line.strip().split("|")
        if len(words) < 5 or words[0] != "1":
            raise StepFailed(
                f"its first line is {line[:100]!r}, and should be 1|1|unix|SOCKET|grpc"
            )
        if words[1] != "1" or words[2] != "unix" or words[4] != "grpc":
            raise StepFailed(f"it speaks {line[:100]!r}; this agent speaks 1|1|unix|SOCKET|grpc")
        threading.Thread(target=_copy, args=(pipe,), daemon=True).start()
        return words[3]

    def _first_line(self, pipe: IO[bytes]) -> str:
        said = b""
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        while b"\n" not in said:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([pipe], [], [], remaining)[0]:
                raise StepFailed(f"it did not say within {HANDSHAKE_SECONDS:g} s where it serves")
            piece = os.read(pipe.fileno(), 1)
            if not piece:
                raise StepFailed(f"it ended before it served: {self._end_words()}")
            said += piece
            if len(said) > _LONGEST_HANDSHAKE:
                raise StepFailed("its first line does not end; it should be 1|1|unix|SOCKET|grpc")
        return said.decode(errors="replace")

    def _check(
        self, stub: plugin_pb2_grpc.PluginServiceStub, manifest: Manifest, parameters: str
    ) -> None:
        said = stub.Describe(
            plugin_pb2.DescribeRequest(), timeout=CALL_SECONDS, wait_for_ready=True
        )
        own = (manifest.id, str(manifest.version))
        if (said.plugin_id, said.version) != own:
            told = f"{said.plugin_id[:64]}@{said.version[:64]}"
            raise StepFailed(f"it says that it is {told}, and its package {own[0]}@{own[1]}")
        answer = stub.Validate(
            plugin_pb2.ValidateRequest(parameters=parameters), timeout=CALL_SECONDS
        )
        if answer.faults:
            raise StepFailed(
                "; ".join(f"{each.parameter}: {each.message}" for each in answer.faults)
            )

    def _execute(
        self, stub: plugin_pb2_grpc.PluginServiceStub, parameters: str, children: Children
    ) -> int:
        request = plugin_pb2.ExecuteRequest(
            parameters=parameters, workspace=str(Path.cwd()), env=_task_variables()
        )
        stream = stub.Execute(request)
        children.on_stop = lambda: self._cancel(stub)
        if children.stopping:
            self._cancel(stub)
        shown = 0.0
        for message in stream:
            kind = message.WhichOneof("kind")
            if kind == "output":
                out = sys.stderr if message.output.error else sys.stdout
                out.buffer.write(message.output.data)
                out.buffer.flush()
            elif kind == "progress" and time.monotonic() - shown >= _PROGRESS_SECONDS:
                shown = time.monotonic()
                _show(message.progress)
            elif kind == "result":
                return self._result(message.result)
        raise StepFailed(f"it ended without a result: {self._end_words()}")

    def _result(self, result: plugin_pb2.Result) -> int:
        if result.message:
            sys.stderr.write(f"{result.message}\n")
        if result.outputs and (file := os.environ.get("MUSTER_OUTPUT")):
            with Path(file).open("a", encoding="utf-8") as opened:
                opened.write("".join(_output(*each) for each in result.outputs.items()))
        return result.exit_code

    def _cancel(self, stub: plugin_pb2_grpc.PluginServiceStub) -> None:
        # From a handler of signals: the answer is not waited for.
        stub.Cancel.future(plugin_pb2.CancelRequest(), timeout=CALL_SECONDS)

    def _why(self, error: grpc.RpcError) -> str:
        words = self._end_words(patience=0.5)
        code = error.code() if isinstance(error, grpc.Call) else None
        if words or code is None:
            return f"the plugin is gone: {words or error}"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"the plugin does not answer within {CALL_SECONDS:g} s"
        details = error.details() if isinstance(error, grpc.Call) else ""
        return f"the plugin answers {code.name}: {(details or '')[:500]}"

    def _end_words(self, patience: float = 2.0) -> str:
        """Returns how its process ended; nothing while it lives."""
        try:
            returned = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return ""
        if returned < 0:
            return f"ended by signal {-returned}"
        return f"exit code {exit_code(returned)}"


@contextlib.contextmanager
def _socket_folder() -> Iterator[str]:
    """Gives a folder of our own whose path is short enough for a socket."""
    wanted = tempfile.gettempdir()
    short = wanted if len(wanted) < _LONGEST_SOCKET - 40 else "/tmp"  # noqa: S108 (made safely)
    folder = tempfile.mkdtemp(prefix="plugin-", dir=short)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(pipe: IO[bytes]) -> None:
    """Passes on what a plugin prints by itself."""
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(pipe.fileno(), 65536):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Lets a plugin go; one that does not is killed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _task_variables() -> dict[str, str]:
    """Returns the variables that a message can carry: text, and no odd bytes."""
    return {name: value for name, value in os.environ.items() if _is_text(name + value)}


def _is_text(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _show(progress: plugin_pb2.Progress) -> None:
    share = f"{progress.done:.0%} " if progress.done >= 0 else ""
    sys.stdout.write(f"{share}{progress.message}\n")
    sys.stdout.flush()


def _output(name: str, value: str) -> str:
    if not re.search(r"[\n\r]", value):
        return f"{name}={value}\n"
    mark = "END"
    while mark in value.split("\n"):
        mark += "_"
    return f"{name}<<{mark}\n{value}\n{mark}\n"
