"""The programs of one machine: started in order, watched together, stopped in reverse."""

import asyncio
import contextlib
import signal
from datetime import timedelta
from pathlib import Path

from cli.alongside import alongside, together
from cli.connection import connect
from cli.failure import CommandFailed
from cli.interrupt import Interrupt
from cli.log_print import remark
from cli.processes import Program
from cli.settings import Settings
from generated.task.v1 import task_pb2

STOP_LIMIT = timedelta(seconds=90)  # an agent drains for at most 60 s
ASK_LIMIT = timedelta(seconds=2)
HURRY_EVERY = timedelta(seconds=0.5)
NAMES_SHOWN = 3


class Machine:
    """The programs of one machine, stopped in the reverse order of their start."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.programs: list[Program] = []
        self._server = ""
        self._agents: list[str] = []

    async def start(self, module: str, *arguments: str, name: str = "") -> dict[str, str]:
        """Start a module of ours and return what it says when it is ready."""
        name = name or module
        own = self.data / name
        own.mkdir(mode=0o700, exist_ok=True)
        program = await Program.start(
            name, [module, "--data-dir", str(own), *arguments], self.data / f"{name}.log"
        )
        self.programs.append(program)
        said = await program.ready()
        self._server = said.get("grpc", self._server)
        self._agents += filter(None, [said.get("agent")])
        return said

    async def watch(self) -> None:
        """Wait until a program ends.

        Raises:
            CommandFailed: then.
        """
        await together(*(program.fail_at_end() for program in self.programs))

    async def stop(self, interrupt: Interrupt) -> None:
        """Stop the programs, the first one last; say which tasks that waits for.

        A second signal makes the agents end their tasks at once.
        """
        if names := await self._running_tasks():
            remark(f"waits at most a minute for {_listed(names)}; Ctrl-C again ends that at once")
        await together(*(_stop(program, interrupt) for program in self.programs[1:]))
        await together(*(_stop(program, interrupt) for program in self.programs[:1]))

    async def _running_tasks(self) -> list[str]:
        """Return the names of the tasks that run on the agents, none where nobody tells."""
        names: list[str] = []
        with contextlib.suppress(CommandFailed, TimeoutError):
            async with asyncio.timeout(ASK_LIMIT.total_seconds()):
                for agent in self._agents:
                    names += await _tasks_of(self._server, agent)
        return names


async def _tasks_of(server: str, agent: str) -> list[str]:
    request = task_pb2.ListTasksRequest(
        agent_id=agent, status=task_pb2.TASK_STATUS_RUNNING, page_size=1000
    )
    async with connect(Settings(server=server)) as api:
        answer = await api.call(api.tasks.ListTasks, request)
    return [task.name or task.task_id for task in answer.tasks]


def _listed(names: list[str]) -> str:
    """Return `2 running tasks (a, b)`."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
    return f"{len(names)} running task{'s' if len(names) > 1 else ''} ({shown})"


async def _stop(program: Program, interrupt: Interrupt) -> None:
    async with alongside(_hurry(program, interrupt)):
        await program.stop(STOP_LIMIT)


async def _hurry(program: Program, interrupt: Interrupt) -> None:
    """Ask again, after the second signal; two that come together may count as one."""
    await interrupt.insisted.wait()
    while True:
        program.signal(signal.SIGTERM)
        await asyncio.sleep(HURRY_EVERY.total_seconds())
