"""Several things at once."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager


@asynccontextmanager
async def alongside(*helpers: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run helpers until the block ends; the first error leaves as it is, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(helper) for helper in helpers]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def together(*deeds: Coroutine[object, object, None]) -> None:
    """Do everything at once; the first error stops the rest and leaves as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for deed in deeds:
                group.create_task(deed)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
