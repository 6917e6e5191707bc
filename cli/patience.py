"""Trying again after a broken connection, with growing delays and a limit."""

import asyncio
import random
import time
from datetime import timedelta
from typing import TypeVar

import grpc
from grpc import aio

from cli.connection import Api

# CANCELLED comes from a server that stops while a stream is open.
BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
FIRST_PAUSE = timedelta(milliseconds=100)
LONGEST_PAUSE = timedelta(seconds=5)
LIMIT = timedelta(seconds=60)

Request = TypeVar("Request")
Response = TypeVar("Response")


class Patience:
    """How long to go on trying; progress renews it."""

    def __init__(self, limit: timedelta | None = None) -> None:
        self.limit = LIMIT if limit is None else limit
        self.renew()

    def renew(self) -> None:
        """Start over, because something worked."""
        self.pause = FIRST_PAUSE
        self.started: float | None = None

    async def wait(self) -> bool:
        """Wait before the next try; return False when the limit is reached."""
        now = time.monotonic()
        self.started = self.started or now
        if now - self.started > self.limit.total_seconds():
            return False
        await asyncio.sleep(self.pause.total_seconds() * random.uniform(0.5, 1))  # noqa: S311 - jitter
        self.pause = min(self.pause * 2, LONGEST_PAUSE)
        return True

    async def bear(self, error: aio.AioRpcError) -> None:
        """Wait before the next try.

        Raises:
            grpc.aio.AioRpcError: the error itself, when trying again will not help or the limit
                is reached.
        """
        if error.code() not in BROKEN or not await self.wait():
            raise error


async def call_patiently(
    api: Api,
    method: aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    limit: timedelta | None = None,
) -> Response:
    """Return the answer to a call that may be repeated, through breaks of the connection."""
    patience = Patience(limit)
    while True:
        try:
            return await api.call(method, request)
        except aio.AioRpcError as error:
            await patience.bear(error)
