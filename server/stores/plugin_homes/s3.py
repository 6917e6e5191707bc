"""Packages as objects in a bucket of S3, or of what speaks like it."""

import asyncio
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from server.domain.errors import StoreUnavailable
from server.stores.blobs.place import Bucket
from server.stores.blobs.s3 import ATTEMPTS, CONNECT_SECONDS, CONNECTIONS, GONE
from server.stores.interfaces import HomeKind

READ_SECONDS = 30


class S3Home:
    """See interfaces.PluginHome."""

    kind = HomeKind.STORAGE

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket.name
        self._prefix = f"{bucket.prefix}/" if bucket.prefix else ""
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=bucket.endpoint or None,
            region_name=bucket.region,
            config=Config(
                signature_version="s3v4",
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                max_pool_connections=CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ),
        )

    async def put(self, sha256: str, package: Path) -> None:
        """See PluginHome."""
        try:
            await asyncio.to_thread(
                self._client.upload_file, str(package), self._bucket, self._key(sha256)
            )
        except (BotoCoreError, ClientError, S3UploadFailedError, OSError) as error:
            raise StoreUnavailable(f"plugins: {error}") from error

    async def fetch(self, sha256: str, target: Path) -> bool:
        """See PluginHome."""
        try:
            await asyncio.to_thread(
                self._client.download_file, self._bucket, self._key(sha256), str(target)
            )
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code", "")) in GONE:
                return False
            raise StoreUnavailable(f"plugins: {error}") from error
        except BotoCoreError as error:
            raise StoreUnavailable(f"plugins: {error}") from error
        return True

    async def url(self, sha256: str, seconds: int) -> str:
        """See PluginHome."""
        url: str = await asyncio.to_thread(
            self._client.generate_presigned_url,
            "get_object",
            Params={"Bucket": self._bucket, "Key": self._key(sha256)},
            ExpiresIn=seconds,
        )
        return url

    def _key(self, sha256: str) -> str:
        return f"{self._prefix}{sha256}.tar.gz"
