"""A plugin that is a gRPC server: `plugin.v1.PluginService`, on a socket of its own."""

import contextlib
import json
import os
import queue
import re
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import grpc

from generated.plugin.v1 import plugin_pb2, plugin_pb2_grpc
from plugins.host.children import Children, exit_code
from plugins.host.limits import LIMITS, Limits
from plugins.host.saying import ERR, OUT, say, write
from plugins.host.step import StepFailed
from plugins.package.manifest import Manifest

COOKIE = ("MUSTER_PLUGIN", "9d9f7bd0c2e64a1c8f5e3b1d6a7c4e20")
"""Tells a plugin that an agent started it; no secret."""

_LONGEST_HANDSHAKE = 4096
_LONGEST_SOCKET = 100
_LARGEST_CODE = 255
_MESSAGE_BYTES = 4 * 1024 * 1024
_PROGRESS_SECONDS = 1.0
_REST_SECONDS = 2.0
"""How long what an ended plugin has printed is waited for: others may have its end of the pipe."""

_OUTPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def run(
    program: Sequence[str],
    manifest: Manifest,
    parameters: Mapping[str, Any],
    children: Children,
    limits: Limits = LIMITS,
) -> int:
    """Runs a plugin and returns its exit code.

    Raises:
        StepFailed: It died, does not speak the protocol, or refuses the parameters.
    """
    with _socket_folder() as folder:
        extra = {
            COOKIE[0]: COOKIE[1],
            "PLUGIN_PROTOCOL_VERSIONS": "1",
            "PLUGIN_UNIX_SOCKET_DIR": folder,
        }
        process = children.start(program, extra, piped=True)
        conversation = _Conversation(process, children, limits)
        try:
            return conversation.hold(manifest, parameters)
        finally:
            children.on_stop = None
            conversation.end()


class _Conversation:
    def __init__(
        self, process: "subprocess.Popen[bytes]", children: Children, limits: Limits
    ) -> None:
        self._process = process
        self._children = children
        self._limits = limits
        self._copier: threading.Thread | None = None

    def hold(self, manifest: Manifest, parameters: Mapping[str, Any]) -> int:
        socket = self._handshake()
        options = [("grpc.max_receive_message_length", _MESSAGE_BYTES)]
        with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
            stub = plugin_pb2_grpc.PluginServiceStub(channel)
            try:
                self._check(stub, manifest, json.dumps(parameters))
                return self._execute(stub, json.dumps(parameters))
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
        self._copier = threading.Thread(target=_copy, args=(pipe,), daemon=True)
        self._copier.start()
        return words[3]

    def _first_line(self, pipe: IO[bytes]) -> str:
        said = b""
        deadline = time.monotonic() + self._limits.handshake
        while b"\n" not in said:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([pipe], [], [], remaining)[0]:
                raise StepFailed(
                    f"it did not say within {self._limits.handshake:g} s where it serves"
                )
            piece = os.read(pipe.fileno(), 1)
            if not piece:
                raise StepFailed(
                    f"it ended before it served: {self._end_words() or 'it closed its output'}"
                )
            said += piece
            if len(said) > _LONGEST_HANDSHAKE:
                raise StepFailed("its first line does not end; it should be 1|1|unix|SOCKET|grpc")
        return said.decode(errors="replace")

    def _check(
        self, stub: plugin_pb2_grpc.PluginServiceStub, manifest: Manifest, parameters: str
    ) -> None:
        said = stub.Describe(plugin_pb2.DescribeRequest(), timeout=self._limits.call)
        own = (manifest.id, str(manifest.version))
        if (said.plugin_id, said.version) != own:
            told = f"{said.plugin_id[:64]}@{said.version[:64]}"
            raise StepFailed(f"it says that it is {told}, and its package {own[0]}@{own[1]}")
        answer = stub.Validate(
            plugin_pb2.ValidateRequest(parameters=parameters), timeout=self._limits.call
        )
        if answer.faults:
            raise StepFailed(
                "; ".join(f"{each.parameter}: {each.message}" for each in answer.faults)
            )

    def _execute(self, stub: plugin_pb2_grpc.PluginServiceStub, parameters: str) -> int:
        request = plugin_pb2.ExecuteRequest(
            parameters=parameters,
            workspace=str(Path.cwd()),
            env=_texts(self._children.environment),
        )
        with self._passing_on_stops(stub):
            stream = stub.Execute(request)
            shown = -_PROGRESS_SECONDS
            for message in stream:
                kind = message.WhichOneof("kind")
                if kind == "output":
                    write(ERR if message.output.error else OUT, message.output.data)
                elif kind == "progress" and time.monotonic() - shown >= _PROGRESS_SECONDS:
                    shown = time.monotonic()
                    _show(message.progress)
                elif kind == "result":
                    return self._result(message.result)
        ended = self._end_words()
        raise StepFailed(f"it ended without a result{ended and ': '}{ended}")

    @contextlib.contextmanager
    def _passing_on_stops(self, stub: plugin_pb2_grpc.PluginServiceStub) -> Iterator[None]:
        """Lets a thread ask the plugin to stop: gRPC is not for handlers of signals."""
        stops: queue.SimpleQueue[bool] = queue.SimpleQueue()  # which is

        def pass_on() -> None:
            if stops.get():
                with contextlib.suppress(grpc.RpcError, ValueError):
                    request = plugin_pb2.CancelRequest(grace=self._children.grace)
                    stub.Cancel(request, timeout=self._limits.call)

        threading.Thread(target=pass_on, daemon=True).start()
        self._children.on_stop = lambda: stops.put(True)
        if self._children.stopping:
            stops.put(True)
        try:
            yield
        finally:
            self._children.on_stop = None
            stops.put(False)

    def _result(self, result: plugin_pb2.Result) -> int:
        if result.message:
            say(ERR, result.message)
        if wrong := sorted(name for name in result.outputs if not _OUTPUT_NAME.fullmatch(name)):
            raise StepFailed(f"it tells {wrong[0][:100]!r}, which is no name of an output")
        file = self._children.environment.get("MUSTER_OUTPUT")
        if result.outputs and file:
            with Path(file).open("ab+") as opened:
                opened.write(_new_line(opened))
                for each in sorted(result.outputs.items()):
                    opened.write(_output(*each).encode())
        return result.exit_code if 0 <= result.exit_code <= _LARGEST_CODE else _LARGEST_CODE

    def _why(self, error: grpc.RpcError) -> str:
        words = self._end_words(patience=0.5)
        code = error.code() if isinstance(error, grpc.Call) else None
        if words or code is None:
            return f"the plugin is gone: {words or error}"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"the plugin does not answer within {self._limits.call:g} s"
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

    def end(self) -> None:
        """Lets the plugin go; one that does not is killed. All that it has printed is passed on."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._limits.goodbye)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._copier is not None:
            self._copier.join(_REST_SECONDS)


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
    with contextlib.suppress(OSError):
        while data := os.read(pipe.fileno(), 65536):
            write(OUT, data)


def _texts(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that a message can carry: text, and no odd bytes."""
    return {name: value for name, value in environment.items() if _is_text(name + value)}


def _is_text(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _show(progress: plugin_pb2.Progress) -> None:
    share = f"{progress.done:.0%} " if progress.done >= 0 else ""
    say(OUT, f"{share}{progress.message}")


def _new_line(file: BinaryIO) -> bytes:
    """Returns what keeps an earlier step's last line apart."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _output(name: str, value: str) -> str:
    if not re.search(r"[\n\r]", value):
        return f"{name}={value}\n"
    mark = "END"
    while mark in value.split("\n"):
        mark += "_"
    return f"{name}<<{mark}\n{value}\n{mark}\n"
