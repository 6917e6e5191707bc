"""Streams with a cursor, through breaks of the connection: each message once."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from grpc import aio

from cli.patience import LONGEST_PAUSE, Patience


class Message(Protocol):
    """What a stream with a cursor says."""

    cursor: str


M = TypeVar("M", bound=Message)

Answers: TypeAlias = aio.UnaryStreamCall[Any, M]


async def follow(look: Callable[[str], Answers[M]], after: str = "") -> AsyncIterator[M]:
    """Give what a stream says until it ends; `look` opens it after a cursor.

    Raises:
        grpc.aio.AioRpcError: it was refused, or the connection stays broken.
    """
    patience = Patience()
    while True:
        opened = time.monotonic()
        try:
            async for message in look(after):
                after = message.cursor
                patience.renew()
                yield message
            return
        except aio.AioRpcError as error:
            if time.monotonic() - opened > LONGEST_PAUSE.total_seconds():
                patience.renew()  # the connection was good, only silent
            await patience.bear(error)
