"""Files as objects in a bucket of S3; their parts go there by presigned URLs."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any, TypeVar

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from server.domain.errors import StoreUnavailable
from server.domain.moment import Moment
from server.stores.blobs.place import Bucket
from server.stores.blobs.s3 import ATTEMPTS, CONNECT_SECONDS, CONNECTIONS, GONE
from server.stores.interfaces import Credentials, StoredPart

Answer = TypeVar("Answer")

READ_SECONDS = 60
"""To make one object of many parts takes a store its time."""

COPY = TransferConfig(multipart_threshold=256 * 1024**2, multipart_chunksize=256 * 1024**2)
"""A store copies by itself, and a large object in pieces, each within the time for an answer."""

SHORTEST_LOAN = 900
LONGEST_LOAN = 3600
"""Seconds: what STS gives at least, and to any role at most."""

PUTTING = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")

NO_UPLOAD = frozenset({"NoSuchUpload", "404"})


class S3Objects:
    """See interfaces.ObjectStore and Lender; `role` is the ARN of the one that is lent."""

    verifies = False

    def __init__(self, bucket: Bucket, role: str = "") -> None:
        self.lends = bool(role)
        self._role = role
        self._place = bucket
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

    async def begin(self, name: str) -> str:
        """See ObjectStore."""
        made = await _told(lambda: self._client.create_multipart_upload(**self._where(name)))
        return str(made["UploadId"])

    async def parts(self, name: str, upload: str) -> list[StoredPart] | None:
        """See ObjectStore."""

        def look() -> list[StoredPart] | None:
            pages = self._client.get_paginator("list_parts").paginate(
                **self._where(name), UploadId=upload
            )
            try:
                return [
                    StoredPart(each["PartNumber"], each["ETag"].strip('"'), each["Size"])
                    for page in pages
                    for each in page.get("Parts", ())
                ]
            except ClientError as error:
                if _code(error) in NO_UPLOAD:
                    return None
                raise

        return await _told(look)

    async def part_url(self, name: str, upload: str, number: int, seconds: int) -> str:
        """See ObjectStore."""
        parameters = {**self._where(name), "UploadId": upload, "PartNumber": number}
        return str(
            self._client.generate_presigned_url("upload_part", Params=parameters, ExpiresIn=seconds)
        )

    async def complete(self, name: str, upload: str, parts: Sequence[StoredPart]) -> bool:
        """See ObjectStore."""
        told = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]

        def make() -> bool:
            try:
                self._client.complete_multipart_upload(
                    **self._where(name), UploadId=upload, MultipartUpload={"Parts": told}
                )
            except ClientError as error:
                if _code(error) in NO_UPLOAD:
                    return False
                raise
            return True

        return await _told(make)

    async def abort(self, name: str) -> None:
        """See ObjectStore."""

        def give_up() -> None:
            key = self._prefix + name
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=key
            )
            for each in [each for page in pages for each in page.get("Uploads", ())]:
                if each["Key"] == key:
                    self._client.abort_multipart_upload(
                        **self._where(name), UploadId=each["UploadId"]
                    )

        await _told(give_up)

    async def put_empty(self, name: str) -> None:
        """See ObjectStore."""
        await _told(lambda: self._client.put_object(**self._where(name), Body=b""))

    async def size(self, name: str) -> int | None:
        """See ObjectStore."""

        def look() -> int | None:
            try:
                return int(self._client.head_object(**self._where(name))["ContentLength"])
            except ClientError as error:
                if _code(error) in GONE:
                    return None
                raise

        return await _told(look)

    async def sha256(self, name: str) -> str:
        """See ObjectStore."""

        def read() -> str:
            found = hashlib.sha256()
            try:
                with closing(self._client.get_object(**self._where(name))["Body"]) as body:
                    for piece in body.iter_chunks(1024 * 1024):
                        found.update(piece)
            except ClientError as error:
                if _code(error) in GONE:
                    return ""
                raise
            return found.hexdigest()

        return await _told(read)

    async def url(self, name: str, filename: str, seconds: int) -> str:
        """See ObjectStore."""
        shown = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_"
                        for c in filename)  # fmt: skip
        parameters = {
            **self._where(name),
            "ResponseContentDisposition": f'attachment; filename="{shown}"',
        }
        return str(
            self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)
        )

    async def delete(self, name: str) -> None:
        """See ObjectStore."""
        await _told(lambda: self._client.delete_object(**self._where(name)))

    async def lend(self, folder: str, borrower: str, seconds: int) -> Credentials:
        """See Lender."""
        key = f"{self._prefix}{folder}/"
        partition = self._role.split(":")[1]
        allowed = {
            "Effect": "Allow",
            "Action": PUTTING,
            "Resource": f"arn:{partition}:s3:::{self._bucket}/{key}*",
        }
        policy = {"Version": "2012-10-17", "Statement": [allowed]}
        made = await _told(
            lambda: self._sts.assume_role(
                RoleArn=self._role,
                RoleSessionName=borrower,
                Policy=json.dumps(policy, separators=(",", ":")),
                DurationSeconds=min(max(seconds, SHORTEST_LOAN), LONGEST_LOAN),
            )
        )
        lent = made["Credentials"]
        return Credentials(
            access_key_id=lent["AccessKeyId"],
            secret_access_key=lent["SecretAccessKey"],
            session_token=lent["SessionToken"],
            expires_at=int(lent["Expiration"].timestamp() * 1000),
            endpoint=self._place.endpoint,
            region=self._place.region,
            bucket=self._bucket,
            folder=key,
        )

    @cached_property
    def _sts(self) -> BaseClient:
        """What lends: Amazon's own service, or the store's endpoint, where such stores have it."""
        return boto3.session.Session().client(
            "sts",
            endpoint_url=self._place.endpoint or None,
            region_name=self._place.region,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ),
        )

    async def take(self, source: str, name: str) -> None:
        """See Lender."""
        there = self._where(source)
        await _told(lambda: self._client.copy(there, **self._where(name), Config=COPY))

    async def delete_older(self, folder: str, before: Moment) -> int:
        """See Lender."""

        def delete() -> int:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"
            )
            found = (each for page in pages for each in page.get("Contents", ()))
            old = [
                each["Key"] for each in found if each["LastModified"].timestamp() * 1000 < before
            ]
            for key in old:
                self._client.delete_object(Bucket=self._bucket, Key=key)
            return len(old)

        return await _told(delete)

    def _where(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}


async def _told(call: Callable[[], Answer]) -> Answer:
    """Do what takes time in a thread.

    Raises:
        StoreUnavailable: the store refuses, or does not answer.
    """
    try:
        return await asyncio.to_thread(call)
    except ClientError as error:
        said = error.response.get("Error", {}).get("Message") or _code(error)
        raise StoreUnavailable(f"artifacts: {said}") from error
    except (BotoCoreError, OSError) as error:
        raise StoreUnavailable(f"artifacts: {error}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
