"""Where figures are measured: a folder, and real servers and agents in it."""

import asyncio
import itertools
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.client import Client
from bench.programs import STOP_SECONDS, Program, module, said

ROUNDS = 3
LOOPBACK = ("--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")


class Unmeasurable(Exception):  # noqa: N818 - a statement about this machine, not a fault
    """Something that a figure needs is missing here."""


@dataclass(frozen=True)
class Server:
    """A control plane that serves at `grpc` and `http`, both HOST:PORT."""

    program: Program
    grpc: str
    http: str


def supervisors_of(agent: Program) -> list[psutil.Process]:
    """Return the process that an agent's tasks are children of, which outlives the agent."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "agent.supervisor" in command and str(agent.folder) in command:
            found.append(process)
    return found


def end_supervisor_of(agent: Program) -> None:
    """Wait for the supervisor of an agent that has ended, and kill it when it stays."""
    _, alive = psutil.wait_procs(supervisors_of(agent), timeout=STOP_SECONDS)
    for process in alive:
        process.kill()


@dataclass(frozen=True)
class Muster:
    """A server, an agent and a client of theirs."""

    server: Server
    agent: Program
    client: Client


class Lab:
    """One run of the benchmarks."""

    def __init__(
        self,
        folder: Path,
        scale: float = 1.0,
        rounds: int = ROUNDS,
        profiles: Path | None = None,
    ) -> None:
        self.folder = folder
        self.rounds = rounds
        self._profiles = profiles
        self._scale = scale
        self._names = itertools.count(1)

    def count(self, full: int) -> int:
        """Return how many of something to measure: the full number, scaled for a quick look."""
        return max(1, round(full * self._scale))

    def say(self, text: str) -> None:
        """Tell the person who waits how it goes."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def new_folder(self, name: str) -> Path:
        """Return an empty folder. Its path is short: Unix sockets have at most 107 characters."""
        folder = self.folder / f"{name}{next(self._names)}"
        folder.mkdir()
        return folder

    @asynccontextmanager
    async def server(self, *flags: str, data_dir: Path | None = None) -> AsyncIterator[Server]:
        """Give a server that serves, durable as by default."""
        folder = data_dir or self.new_folder("s")
        command = module("server", "--data-dir", folder, *LOOPBACK, *flags)
        program = Program("server", command, folder)
        try:
            told = await asyncio.to_thread(program.ready)
            with self._profiled("server", program.pid):
                yield Server(program, told["grpc"], told["http"])
        finally:
            await asyncio.to_thread(program.stop)

    @asynccontextmanager
    async def agent(self, server: Server, slots: int, *flags: str) -> AsyncIterator[Program]:
        """Give an agent that has registered."""
        folder = self.new_folder("a")
        place = ("--server", server.grpc, "--data-dir", folder, "--slots", str(slots))
        program = Program("agent", module("agent", *place, "--drain-limit", "1", *flags), folder)
        try:
            await asyncio.to_thread(program.ready)
            with (
                self._profiled("agent", program.pid),
                self._profiled("supervisor", *(each.pid for each in supervisors_of(program))),
            ):
                yield program
        finally:
            await asyncio.to_thread(program.stop)
            await asyncio.to_thread(end_supervisor_of, program)

    @contextmanager
    def _profiled(self, name: str, *pids: int) -> Iterator[None]:
        """Write a flame graph of each process, when profiles are asked for."""
        spies = [] if self._profiles is None else [self._spy(name, pid) for pid in pids]
        try:
            yield
        finally:
            for spy in spies:
                spy.stop(signal.SIGINT)  # then it writes what it has seen

    def _spy(self, name: str, pid: int) -> Program:
        folder = self.new_folder("p")
        flames = f"{self._profiles}/{name}-{pid}.svg"
        # Who holds the GIL works; without that, threads that wait would fill the picture.
        command = ["py-spy", "record", "--gil", "--threads", "--duration", "unlimited"]
        return Program("py-spy", [*command, "--pid", str(pid), "--output", flames], folder)

    @asynccontextmanager
    async def muster(
        self,
        slots: int,
        *,
        server_flags: Sequence[str] = (),
        data_dir: Path | None = None,
        auth: bool = False,
    ) -> AsyncIterator[Muster]:
        """Give a server with one agent of so many slots, and a client in this process.

        With `auth` the client shows a token, and the agent is enrolled.
        """
        folder = data_dir or self.new_folder("s")
        token, flags = "", list(server_flags)
        if auth:
            make = module("server", "--data-dir", folder, "token", "bench")
            token = (await asyncio.to_thread(said, make, folder)).strip()
            flags += ["--auth", "on"]
        async with (
            self.server(*flags, data_dir=folder) as server,
            Client(server.grpc, server.http, token) as client,
            self.agent(server, slots, *(await self._enrolment(client) if auth else ())) as agent,
        ):
            yield Muster(server, agent, client)

    async def _enrolment(self, client: Client) -> tuple[str, str]:
        """Return the flags that make a host an agent."""
        file = self.new_folder("t") / "token"
        file.write_text(await client.enrolment_token())
        return "--enrolment-token-file", str(file)
