"""The line to the control plane: the stream while it can be had, unary calls while it cannot."""

from typing import Protocol

import grpc
import grpc.aio
import structlog

from agent.stream_line import StreamRefusedError
from agent.unary_line import UnaryLine

_ENOUGH = 3
"""Refusals of the stream in a row, with unary calls getting through, that end the trying."""

_log = structlog.get_logger("agent.line")


class Line(Protocol):
    """Carries what the board has to say to the control plane, and back what that answers."""

    async def hold(self) -> None:
        """Serves the session until the line ends or another is to be tried.

        Raises:
            grpc.aio.AioRpcError: It ended with an error.
            TimeoutError: The control plane fell silent.
        """


class BestLine:
    """Holds the stream; between streams that somebody refuses, works by unary calls."""

    def __init__(self, stream: Line, unary: UnaryLine) -> None:
        self._stream = stream
        self._unary = unary
        self._refusals = 0

    async def hold(self) -> None:
        """See Line."""
        if self._refusals < _ENOUGH:
            await self._hold_stream()
            return
        _log.warning("the stream is refused: working by unary calls")
        # Whatever ends it, the stream has one more chance then.
        self._refusals = _ENOUGH - 1
        await self._unary.hold()

    async def _hold_stream(self) -> None:
        try:
            await self._stream.hold()
        except StreamRefusedError as refusal:
            _log.warning("the stream was refused", error=str(refusal))
            await self._count(refusal)
        except (grpc.aio.AioRpcError, TimeoutError):
            self._refusals = 0
            raise
        else:
            self._refusals = 0

    async def _count(self, refusal: StreamRefusedError) -> None:
        """Counts a refusal as one only when the control plane is there otherwise."""
        before, self._refusals = self._refusals, 0
        await self._unary.beat()
        self._refusals = _ENOUGH if refusal.for_good else before + 1
