"""Where blobs are to live, as settings name it: a folder, or `s3://BUCKET/PREFIX`."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from server.stores.blobs.folder import FolderBlobs
from server.stores.interfaces import BlobStore

SCHEME = "s3://"
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Objects of S3: `endpoint` is a URL, empty for Amazon's; `prefix` begins every key.

    Keys to it come from where boto3 looks: the environment, its files, the machine's role.
    """

    name: str
    prefix: str = ""
    endpoint: str = ""
    region: str = "us-east-1"


def parse_bucket(text: str) -> Bucket:
    """Return what `s3://BUCKET/PREFIX?endpoint=URL&region=NAME` names; only BUCKET has to be there.

    Raises:
        ValueError: it is malformed, or boto3 is not installed.
    """
    try:
        url = urlsplit(text)
        query = parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
    except ValueError as error:
        raise ValueError(f"should be {SCHEME}BUCKET/PREFIX: {error}") from None
    options = dict(query)
    if unknown := sorted(options.keys() - {"endpoint", "region"}) or len(options) < len(query):
        raise ValueError(f"knows endpoint and region, once each, and not {unknown}")
    if not BUCKET_NAME.fullmatch(url.netloc) or url.fragment:
        raise ValueError(f"should be {SCHEME}BUCKET/PREFIX, with the name of a bucket")
    endpoint = options.get("endpoint", "")
    if endpoint and not re.fullmatch(r"https?://[^/@\s]+/?", endpoint):
        raise ValueError("endpoint should be http:// or https:// with HOST:PORT, and no more")
    if find_spec("boto3") is None:
        raise ValueError("needs boto3: install Muster with its extra s3")
    return Bucket(
        url.netloc, url.path.strip("/"), endpoint.rstrip("/"), options.get("region") or "us-east-1"
    )


def open_place(place: Path | Bucket) -> BlobStore:
    """Return the blobs of a place; nothing is asked of it yet."""
    if isinstance(place, Path):
        return FolderBlobs(place)
    from server.stores.blobs.s3 import S3Blobs  # late: slow to import, and an extra

    return S3Blobs(place)
