"""What the stories are told with: real servers, agents and commands on free ports.

A test takes the `kit` fixture. Everything a kit starts is ended with the test, and what the
programs wrote to stderr is shown when the test fails.
"""

import contextlib
import http.client
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e.processes import BIN, Launcher, Program, eventually

__all__ = ["Agent", "Kit", "Server", "eventually"]


@dataclass
class Server:
    """A control plane that serves at `grpc` and `http`, both HOST:PORT."""

    kit: "Kit"
    data_dir: Path
    flags: tuple[str, ...]
    env: Mapping[str, str]
    grpc: str = "127.0.0.1:0"
    http: str = "127.0.0.1:0"
    program: Program = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self.program.pid

    @property
    def stderr(self) -> Path:
        """What it wrote since it was started last."""
        return self.program.stderr

    def start(self) -> None:
        """Start it where it was before, if it was."""
        listen = ["--grpc-listen", self.grpc, "--http-listen", self.http]
        folder = ["--data-dir", str(self.data_dir)]
        arguments = [*_module("server"), *folder, *listen, *self.flags]
        self.program = self.kit.launcher.start("server", arguments, self.env)
        told = dict(part.split("=", 1) for part in self.program.ready_line().split()[1:])
        self.grpc, self.http = told["grpc"], told["http"]

    def kill9(self) -> None:
        """End it without a chance to tidy up."""
        self.program.kill9()

    def terminate(self) -> int:
        """Stop it gracefully and return its exit code."""
        return self.program.terminate()

    def restart(self) -> None:
        """Stop it if it runs, and start it with the same data at the same ports."""
        self.terminate()
        self.start()


@dataclass
class Agent:
    """A worker: the process that talks with the server, and its supervisor."""

    kit: "Kit"
    server: str
    labels: Mapping[str, str]
    slots: int
    data_dir: Path
    flags: tuple[str, ...]
    env: Mapping[str, str]
    program: Program = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def pid(self) -> int:
        """The process that talks with the server."""
        return self.program.pid

    @property
    def stderr(self) -> Path:
        """What it wrote since it was started last."""
        return self.program.stderr

    @property
    def supervisor(self) -> psutil.Process:
        """The process that the tasks are children of.

        Raises:
            LookupError: there is none.
        """
        for process in self.kit.launcher.marked():
            command = _command(process)
            if "agent.supervisor" in command and str(self.data_dir) in command:
                return process
        raise LookupError(f"The agent in {self.data_dir} has no supervisor.")

    def start(self) -> None:
        """Start it, with what it left in its folder."""
        labels = ",".join(f"{key}={value}" for key, value in self.labels.items())
        place = ["--server", self.server, "--data-dir", str(self.data_dir)]
        size = ["--slots", str(self.slots), *(["--labels", labels] if labels else [])]
        arguments = [*_module("agent"), *place, *size, *self.flags]
        self.program = self.kit.launcher.start("agent", arguments, self.env)
        self.program.ready_line()

    def kill9(self) -> None:
        """End the process that talks with the server; its supervisor and its tasks live on."""
        self.program.kill9()

    def kill9_supervisor(self) -> None:
        """End the supervisor without a chance to tidy up."""
        supervisor = self.supervisor
        supervisor.kill()
        psutil.wait_procs([supervisor], timeout=10)

    def terminate(self) -> int:
        """Stop it gracefully and return its exit code."""
        return self.program.terminate()

    def restart(self) -> None:
        """Stop it if it runs, and start it with the same data."""
        self.terminate()
        self.start()


class Kit:
    """One test's servers, agents and commands, in a short-lived folder of their own."""

    def __init__(self) -> None:
        # Unix sockets have at most 107 characters, so the folder's name is short.
        self.folder = Path(tempfile.mkdtemp(prefix="kit-"))
        self.launcher = Launcher(self.folder)
        self._agents = 0

    def start_server(
        self,
        *flags: str,
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Server:
        """Return a server that serves."""
        return Server(self, data_dir or self.folder / "server", flags, env or {})

    def start_agent(
        self,
        server: Server | str,
        *flags: str,
        labels: Mapping[str, str] | None = None,
        slots: int = 1,
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Agent:
        """Return an agent that has registered."""
        self._agents += 1
        address = server.grpc if isinstance(server, Server) else server
        folder = data_dir or self.folder / f"agent{self._agents}"
        return Agent(self, address, labels or {}, slots, folder, flags, env or {})

    @property
    def agent_program(self) -> list[str]:
        """How an agent is started."""
        return _module("agent")

    @property
    def server_program(self) -> list[str]:
        """How a server is started."""
        return _module("server")

    def server_run(self, data_dir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run a server that cannot start, to its end."""
        return self.launcher.run([*_module("server"), "--data-dir", str(data_dir), *flags])

    def agent_refused(self, server: Server, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run an agent that its server will not have, to its end."""
        place = ["--server", server.grpc, "--data-dir", str(self.folder / "refused")]
        return self.launcher.run([*_module("agent"), *place, *flags])

    def cli(
        self,
        *arguments: str,
        server: Server | str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run `muster` with these arguments, against this server, to its end."""
        address = server.grpc if isinstance(server, Server) else server
        known: dict[str, str] = {"MUSTER_SERVER": address} if address else {}
        command = [*_module("cli"), *arguments]
        return self.launcher.run(
            command, env={**known, **(env or {})}, stdin=stdin, timeout=timeout
        )

    def start_cli(
        self, *arguments: str, server: Server | str, env: Mapping[str, str] | None = None
    ) -> Program:
        """Start `muster` with these arguments and leave it running."""
        address = server.grpc if isinstance(server, Server) else server
        command = [*_module("cli"), *arguments]
        return self.launcher.start("cli", command, {"MUSTER_SERVER": address, **(env or {})})

    def server_command(
        self, *arguments: str, data_dir: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of `muster-server` on the folder that a server has or will have."""
        folder = ["--data-dir", str(data_dir or self.folder / "server")]
        return self.launcher.run([*_module("server"), *folder, *arguments])

    def get(
        self, server: Server, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Return status and text of a page of a server."""
        with contextlib.closing(http.client.HTTPConnection(server.http, timeout=10)) as connection:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def grpcurl(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `grpcurl -plaintext` with these arguments."""
        return self.launcher.run([BIN / "grpcurl", "-plaintext", *arguments], timeout=timeout)

    def buf(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `buf` with these arguments."""
        return self.launcher.run([BIN / "buf", *arguments], timeout=timeout)

    def stderr(self) -> list[tuple[str, str]]:
        """Return what each program that stays has written to stderr, by its name."""
        return [
            (program.name, program.stderr.read_text(errors="replace"))
            for program in self.launcher.started
        ]

    def close(self) -> None:
        """End everything and remove the folder."""
        self.launcher.end_all()
        shutil.rmtree(self.folder, ignore_errors=True)


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
