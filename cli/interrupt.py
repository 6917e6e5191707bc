"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once."""

import asyncio
import signal
from collections.abc import Coroutine
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CANCEL_AGAIN = timedelta(seconds=0.5)

Result = TypeVar("Result")


def run(deed: Coroutine[object, object, Result]) -> Result:
    """Return what a deed gives, run in a loop of its own; Ctrl-C cancels it, a second ends at once.

    asyncio alone may sleep through a signal that comes just before its loop falls asleep, or to
    another thread. The loop's own signal handlers wake it.

    Raises:
        KeyboardInterrupt: it was ended by Ctrl-C, whatever it raised then.
    """
    return asyncio.run(_until_ctrl_c(deed))


async def _until_ctrl_c(deed: Coroutine[object, object, Result]) -> Result:
    loop = asyncio.get_running_loop()
    doing = asyncio.current_task()
    again: asyncio.TimerHandle | None = None

    def cancel() -> None:
        """Cancel the deed until it ends; a call that ends at this moment may swallow one."""
        nonlocal again
        again = loop.call_later(CANCEL_AGAIN.total_seconds(), cancel)
        if doing is not None:
            doing.cancel()

    def heard() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        cancel()

    loop.add_signal_handler(signal.SIGINT, heard)
    try:
        return await deed
    except (Exception, asyncio.CancelledError):
        if again is None:
            raise
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        if again is not None:
            again.cancel()


class StopAskedFor(Exception):  # noqa: N818 - not an error
    """A signal came."""


class Interrupt:
    """While it is entered, signals are counted instead of ending the program."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        self.exit_code = 0

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.heard, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    async def raise_when_asked(self) -> None:
        """Wait for the first signal.

        Raises:
            StopAskedFor: then.
        """
        await self.asked.wait()
        raise StopAskedFor

    async def raise_when_insisted(self) -> None:
        """Wait for the second signal.

        Raises:
            StopAskedFor: then.
        """
        await self.insisted.wait()
        raise StopAskedFor

    def heard(self, number: signal.Signals) -> None:
        """Take in one signal."""
        if self.asked.is_set():
            self.insisted.set()
        self.exit_code = self.exit_code or 128 + number
        self.asked.set()
