"""A loop whose time leaps to the next timer as soon as nothing else is to do.

For loops over fakes only: a real database or socket works in real time and would be overtaken.
"""

import asyncio
from functools import wraps


class StuckError(AssertionError):
    """Everything waits for something that no timer will bring."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self):
        self._virtual = 0.0
        super().__init__()

    def time(self):
        return self._virtual

    def _run_once(self):
        if not self._ready:
            timers = [handle.when() for handle in self._scheduled if not handle.cancelled()]
            if not timers:
                raise StuckError("nothing is ready and no timer runs: the test waits for ever")
            self._virtual = max(self._virtual, min(timers))
        super()._run_once()


def in_virtual_time(test):
    """Run a test's coroutine in a virtual-time loop of its own."""

    @wraps(test)
    def run(*args, **kwargs):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def settle(turns=50):
    """Let everything run that can run without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)
