"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once."""

import asyncio
import signal
from types import TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
