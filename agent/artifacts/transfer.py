"""Bytes between this host and the store: parts out and files in, however often the line breaks."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

Result = TypeVar("Result")

ATTEMPTS = 6
"""How often it is tried to get any further."""

SILENCE_SECONDS = 60.0
PIECE = 1024 * 1024

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class CutError(Exception):
    """A transfer broke, and may work when it is tried again; the message says how."""


class ExpiredError(Exception):
    """A URL does not count any more."""


class RefusedError(Exception):
    """A store refuses a transfer for good; the message says why."""


def trying(place: Callable[[], int] = lambda: 0) -> AsyncRetrying:
    """Return how often, and with which pauses, what broke is tried again.

    `place` tells how far it came: only tries in a row that bring it no further count.
    """
    best, best_try = place(), 0

    def is_hopeless(state: RetryCallState) -> bool:
        nonlocal best, best_try
        if (now := place()) > best:
            best, best_try = now, state.attempt_number
        return state.attempt_number - best_try >= ATTEMPTS

    return AsyncRetrying(
        retry=retry_if_exception_type(CutError),
        stop=is_hopeless,
        wait=wait_exponential(0.2, max=5),
        reraise=True,
    )


def open_client(ca: Path | None) -> httpx2.AsyncClient:
    """Return an HTTP client that trusts this authority too."""
    import ssl

    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    return httpx2.AsyncClient(
        timeout=SILENCE_SECONDS,
        verify=context,
        follow_redirects=False,
        trust_env=False,
        limits=httpx2.Limits(max_connections=16),
    )


async def put(client: httpx2.AsyncClient, url: str, file: int, offset: int, size: int) -> str:
    """Put a part of an open file; return the etag that the store gave it.

    Raises:
        CutError: It broke.
        ExpiredError: The URL does not count any more.
        RefusedError: The store refuses it, or the file has become shorter.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        answer = await client.put(
            url,
            content=_pieces(file, offset, size, digest),
            headers={"content-length": str(size)},
        )
    except httpx2.HTTPError as error:
        raise CutError(f"the store: {error or type(error).__name__}") from error
    _judge(answer.status_code, answer.text)
    etag = answer.headers.get("etag", "").strip('"')
    # Where the store's etag is an MD5, it tells whether what arrived is what was sent.
    if len(etag) == 32 and etag != digest.hexdigest():
        raise CutError("the store has other bytes than were sent")
    return str(etag)


async def _pieces(
    file: int, offset: int, size: int, digest: "hashlib._Hash"
) -> AsyncIterator[bytes]:
    end = offset + size
    while offset < end:
        piece = await asyncio.to_thread(os.pread, file, min(PIECE, end - offset), offset)
        if not piece:
            raise RefusedError("the file became shorter while it was sent")
        digest.update(piece)
        offset += len(piece)
        yield piece


async def get(client: httpx2.AsyncClient, url: str, target: Path, size: int) -> None:
    """Bring a file's bytes behind those that are here already.

    Raises:
        CutError: It broke; what came is kept.
        ExpiredError: The URL does not count any more.
        RefusedError: The store refuses it, or gives more than there should be.
        OSError: It cannot be written.
    """
    there = await asyncio.to_thread(bytes_of, target)
    if there == size and there:
        return
    headers = {"accept-encoding": "identity", **({"range": f"bytes={there}-"} if there else {})}
    try:
        async with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code not in (200, 206):
                _judge(answer.status_code, (await answer.aread()).decode(errors="replace"))
            if answer.status_code == 200:
                there = 0
            with target.open("ab" if answer.status_code == 206 else "wb") as file:
                arrived = bytearray()
                try:
                    async for piece in answer.aiter_raw():
                        there += len(piece)
                        if there > size:
                            raise RefusedError(f"the store gives more than {size} bytes")
                        arrived += piece
                        if len(arrived) >= PIECE:
                            await asyncio.to_thread(file.write, arrived)
                            arrived = bytearray()
                finally:
                    file.write(arrived)  # also of what broke: the next try goes on from here
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise RefusedError(f"the store's URL: {error}") from error
    except httpx2.HTTPError as error:
        raise CutError(f"the store: {error or type(error).__name__}") from error
    if there < size:
        raise CutError(f"only {there} of {size} bytes came")


def bytes_of(path: Path) -> int:
    """Return how many bytes a file has; none where there is no file."""
    return path.stat().st_size if path.exists() else 0


async def all_of(jobs: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Do several things at once and return what comes of each.

    Raises:
        Exception: What the first that failed raised; the others are given up.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]


def _judge(status: int, text: str) -> None:
    if status in (200, 201, 204, 206):
        return
    if status in (401, 403):
        raise ExpiredError(f"the store answers {status}")
    if status in _AGAIN:
        raise CutError(f"the store answers {status}")
    raise RefusedError(f"the store answers {status}: {' '.join(text.split())[:200]}")
