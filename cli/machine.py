"""The programs of one machine: started in order, watched together, stopped in reverse."""

import signal
from datetime import timedelta
from pathlib import Path

from cli.alongside import alongside, together
from cli.interrupt import Interrupt
from cli.processes import Program

STOP_LIMIT = timedelta(seconds=90)  # an agent drains for at most 60 s


class Machine:
    """The programs of one machine, stopped in the reverse order of their start."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.programs: list[Program] = []

    async def start(self, module: str, *arguments: str, name: str = "") -> dict[str, str]:
        """Start a module of ours and return what it says when it is ready."""
        name = name or module
        own = self.data / name
        own.mkdir(mode=0o700, exist_ok=True)
        program = await Program.start(
            name, [module, "--data-dir", str(own), *arguments], self.data / f"{name}.log"
        )
        self.programs.append(program)
        return await program.ready()

    async def watch(self) -> None:
        """Wait until a program ends.

        Raises:
            CommandFailed: then.
        """
        await together(*(program.fail_at_end() for program in self.programs))

    async def stop(self, interrupt: Interrupt) -> None:
        """Stop the programs; a second signal makes the agent leave its tasks at once."""
        for program in reversed(self.programs):
            async with alongside(_hurry(program, interrupt)):
                await program.stop(STOP_LIMIT)


async def _hurry(program: Program, interrupt: Interrupt) -> None:
    await interrupt.insisted.wait()
    program.signal(signal.SIGTERM)
