"""Loops outlive what goes wrong in one of their rounds."""

from collections.abc import Awaitable, Callable

import structlog

from server.domain.errors import MusterError

log = structlog.get_logger(__name__)


async def survives(what: str, work: Callable[[], Awaitable[object]]) -> bool:
    """Do one round of a loop; log what goes wrong and return whether nothing did.

    A loop that ended would end the server, and the same row would end it again after a restart.
    """
    try:
        await work()
    except MusterError as error:
        log.warning(f"{what} wait", reason=str(error))
        return False
    except Exception as error:
        log.error(f"{what} failed", reason=str(error), exc_info=error)
        return False
    return True
