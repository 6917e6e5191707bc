"""Blobs as objects in a bucket of S3, or of what speaks like it."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from server.domain.errors import StoreUnavailable
from server.stores.blobs.folder import OWNER
from server.stores.blobs.place import Bucket
from server.stores.interfaces import Room

ATTEMPTS = 3
"""How often a call is tried in all, with growing pauses, on 5xx, throttling and cut connections."""

CONNECT_SECONDS = 3
READ_SECONDS = 10
"""A server that stops waits for a call that is under way, so these are short."""

CONNECTIONS = 16

Answer = TypeVar("Answer")

CUT = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
"""What becomes of an answer that ends in its middle; botocore does not ask again by itself."""

GONE = frozenset({"NoSuchKey", "404"})
BEHIND_THE_END = frozenset({"InvalidRange", "416"})


class S3Blobs:
    """See interfaces.BlobStore."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket.name
        self._prefix = f"{bucket.prefix}/" if bucket.prefix else ""
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=bucket.endpoint or None,
            region_name=bucket.region,
            config=Config(
                signature_version="s3v4",  # the one that every store takes
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                max_pool_connections=CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ),
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    async def take(self, database_id: str) -> bool:
        """Let the prefix be a database's, unless it is another's; return whether it is.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        ours = f"{OWNER}{database_id}"
        if not await self.names(OWNER):
            await self.put(ours, b"")
        return await self.names(OWNER) == [ours]

    async def put(self, name: str, data: bytes) -> None:
        """See BlobStore; the store compares a checksum of what arrived."""
        await _told(
            lambda: self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + name, Body=data, ChecksumAlgorithm="SHA256"
            )
        )

    async def get(self, name: str, offset: int, size: int) -> bytes:
        """See BlobStore."""
        return await _told(lambda: self._get(name, offset, size))

    @retry(
        retry=retry_if_exception_type(CUT),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(0.1, max=2),
        reraise=True,
    )
    def _get(self, name: str, offset: int, size: int) -> bytes:
        if size <= 0:
            return b""
        try:
            answer = self._client.get_object(
                Bucket=self._bucket,
                Key=self._prefix + name,
                Range=f"bytes={offset}-{offset + size - 1}",
            )
        except ClientError as error:
            if _code(error) in GONE | BEHIND_THE_END:
                return b""
            raise
        with closing(answer["Body"]) as body:  # the body's own `with` gives what it wraps
            data: bytes = body.read()
        return data

    async def names(self, prefix: str) -> list[str]:
        """See BlobStore."""
        return await _told(lambda: self._names(prefix))

    def _names(self, prefix: str) -> list[str]:
        start = len(self._prefix)
        found = (each for page in self._pages(prefix) for each in page.get("Contents", ()))
        return sorted(each["Key"][start:] for each in found)

    def _pages(self, prefix: str) -> Iterable[dict[str, Any]]:
        pages: Iterable[dict[str, Any]] = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        return pages

    async def delete(self, name: str) -> None:
        """See BlobStore."""
        await _told(
            lambda: self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        )

    async def room(self) -> Room | None:
        """See BlobStore: nobody can say."""
        return None


async def _told(call: Callable[[], Answer]) -> Answer:
    """Do what takes time in a thread.

    Raises:
        StoreUnavailable: the store refuses, or does not answer.
    """
    try:
        return await asyncio.to_thread(call)
    except ClientError as error:
        said = error.response.get("Error", {}).get("Message") or _code(error)
        raise StoreUnavailable(f"blobs: {said}") from error
    except (BotoCoreError, OSError) as error:
        raise StoreUnavailable(f"blobs: {error}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
