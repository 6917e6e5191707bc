"""What every ObjectStore promises, over a folder and a real S3; and what Artifacts make of it."""

import asyncio
import hashlib
import os
import time
import uuid
from contextlib import closing

import boto3
import httpx2
import pytest
from botocore.exceptions import ClientError

from server.domain.errors import StoreUnavailable
from server.stores.blobs.place import Bucket
from server.stores.interfaces import OwnDoor, StoredPart
from server.stores.objects.folder import FolderObjects
from server.stores.objects.s3 import S3Objects
from tests.seaweedfs import BUCKET, ROLE, seaweedfs

pytestmark = pytest.mark.xdist_group("blobs")  # one S3 is enough

PART = 5 * 1024 * 1024
"""The least that S3 takes of a part that is not the last."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    return FolderObjects(tmp_path / "objects")


@pytest.fixture
def bucket(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    return S3Objects(Bucket(BUCKET, f"tests/{uuid.uuid4()}", s3.endpoint), ROLE)


@pytest.fixture(params=["folder", "bucket"])
def store(request):
    return request.getfixturevalue(request.param)


async def put(store, name, upload, number, data):
    """Put a part as an agent would; return it."""
    url = await store.part_url(name, upload, number, 60)
    if url:
        answer = await asyncio.to_thread(httpx2.put, url, content=data)
        answer.raise_for_status()
        return StoredPart(number, answer.headers["etag"].strip('"'), len(data))

    async def pieces():
        for start in range(0, len(data), 1000_000):
            yield data[start : start + 1000_000]

    offset = (number - 1) * PART
    etag = await store.put_part(upload, number, offset, len(data), pieces())
    return StoredPart(number, etag, len(data))


async def test_a_file_is_there_when_all_its_parts_are(store):
    data = os.urandom(PART + 1000)
    upload = await store.begin("a/b.bin")
    last = await put(store, "a/b.bin", upload, 2, data[PART:])
    assert await store.parts("a/b.bin", upload) == [last]
    assert await store.size("a/b.bin") is None
    first = await put(store, "a/b.bin", upload, 1, data[:PART])
    assert first.etag == hashlib.md5(data[:PART], usedforsecurity=False).hexdigest()
    assert await store.parts("a/b.bin", upload) == [first, last]
    assert await store.complete("a/b.bin", upload, [first, last])
    assert await store.size("a/b.bin") == len(data)
    assert await store.sha256("a/b.bin") == hashlib.sha256(data).hexdigest()
    assert await store.parts("a/b.bin", upload) is None
    await store.complete("a/b.bin", upload, [first, last])  # an answer may have been lost
    assert await store.size("a/b.bin") == len(data)
    await store.delete("a/b.bin")
    await store.delete("a/b.bin")
    assert await store.size("a/b.bin") is None
    assert await store.sha256("a/b.bin") == ""


async def test_a_part_that_is_put_again_counts_once(store):
    upload = await store.begin("x")
    await put(store, "x", upload, 1, b"one")
    again = await put(store, "x", upload, 1, b"two")
    assert again in await store.parts("x", upload)
    await store.complete("x", upload, [again])
    assert await store.sha256("x") == hashlib.sha256(b"two").hexdigest()


async def test_a_part_that_comes_late_changes_nothing(folder):
    upload = await folder.begin("x")
    arrived, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly():
        yield b"B"
        arrived.set()
        await goes_on.wait()
        yield b"BB"

    async def late():
        with pytest.raises(FileNotFoundError):
            await folder.put_part(upload, 1, 0, 3, slowly())

    async with asyncio.TaskGroup() as group:
        group.create_task(late())
        await arrived.wait()
        part = await put(folder, "x", upload, 1, b"GGG")
        assert await folder.complete("x", upload, [part])
        goes_on.set()
    with pytest.raises(FileNotFoundError):
        await put(folder, "x", upload, 1, b"BBB")
    assert await folder.sha256("x") == hashlib.sha256(b"GGG").hexdigest()


async def test_one_part_may_come_several_times_at_once(folder):
    upload = await folder.begin("x")
    parts = await asyncio.gather(*(put(folder, "x", upload, 1, b"same") for _ in range(20)))
    assert len(set(parts)) == 1
    assert await folder.parts("x", upload) == [parts[0]]


async def test_uploads_are_given_up(store):
    first, second = await store.begin("x"), await store.begin("x")
    other = await store.begin("xy")
    await put(store, "x", first, 1, b"one")
    await store.abort("x")
    assert await store.parts("x", first) is None
    assert await store.parts("x", second) is None
    assert await store.parts("xy", other) == []


async def test_a_file_of_no_bytes(store):
    await store.put_empty("e")
    assert await store.size("e") == 0


async def test_a_url_of_the_store_gives_the_file_for_saving(store):
    upload = await store.begin("n")
    part = await put(store, "n", upload, 1, b"hello")
    await store.complete("n", upload, [part])
    url = await store.url("n", 'na"me.txt', 60)
    assert bool(url) is not isinstance(store, OwnDoor)
    if url:
        answer = await asyncio.to_thread(httpx2.get, url, headers={"range": "bytes=1-"})
        assert answer.content == b"ello"
        assert answer.headers["content-disposition"] == 'attachment; filename="na_me.txt"'


def borrowed(lent):
    """Return a client of S3 that shows what was lent."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=lent.endpoint,
        region_name=lent.region,
        aws_access_key_id=lent.access_key_id,
        aws_secret_access_key=lent.secret_access_key,
        aws_session_token=lent.session_token,
    )


async def test_lent_credentials_put_into_one_folder_and_do_nothing_else(bucket):
    lent = await bucket.lend("incoming/a", "grant-1", 60)
    assert 890 < lent.expires_at / 1000 - time.time() < 910  # STS lends for no shorter time
    with closing(borrowed(lent)) as client:
        client.put_object(Bucket=lent.bucket, Key=f"{lent.folder}x", Body=b"mine")
        there = {"Bucket": lent.bucket, "Key": f"{lent.folder}x"}
        for other in ("incoming/b/x", "incoming/ab", "x"):
            key = lent.folder.removesuffix("incoming/a/") + other
            with pytest.raises(ClientError, match="AccessDenied"):
                client.put_object(Bucket=lent.bucket, Key=key, Body=b"not mine")
        for deed in (
            lambda: client.get_object(**there),
            lambda: client.delete_object(**there),
            lambda: client.list_objects_v2(Bucket=lent.bucket, Prefix=lent.folder),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                deed()
    assert await bucket.size("incoming/a/x") == 4


async def test_what_is_taken_in_is_not_changed_by_what_is_put_later(bucket):
    lent = await bucket.lend("incoming/a", "grant-1", 900)
    with closing(borrowed(lent)) as client:
        client.put_object(Bucket=lent.bucket, Key=f"{lent.folder}x", Body=b"first")
        await bucket.take("incoming/a/x", "kept")
        client.put_object(Bucket=lent.bucket, Key=f"{lent.folder}x", Body=b"later")
    assert await bucket.sha256("kept") == hashlib.sha256(b"first").hexdigest()


async def test_what_lies_long_enough_in_a_folder_is_deleted(bucket):
    for name in ("incoming/a/x", "incoming/a/b/y", "kept"):
        await bucket.put_empty(name)
    now = int(time.time() * 1000)
    assert await bucket.delete_older("incoming", now - 3600_000) == 0
    assert await bucket.delete_older("incoming", now + 60_000) == 2
    assert await bucket.size("incoming/a/b/y") is None
    assert await bucket.size("kept") == 0


async def test_a_part_of_another_size_is_refused(folder):
    async def pieces(data):
        yield data

    upload = await folder.begin("x")
    for data in (b"12", b"1234"):
        with pytest.raises(ValueError, match="bytes"):
            await folder.put_part(upload, 1, 0, 3, pieces(data))
    assert await folder.parts("x", upload) == []
    with pytest.raises(FileNotFoundError):
        await folder.put_part("nothing-here", 1, 0, 3, pieces(b"123"))


def test_no_name_leads_outside(folder):
    for name in ("../x", "/etc/passwd", "a/../../x"):
        assert not folder.path(name).exists()


async def test_a_store_that_is_away_is_unavailable(tmp_path):
    (tmp_path / "file").touch()
    away = FolderObjects(tmp_path / "file")
    with pytest.raises(StoreUnavailable):
        await away.begin("x")
    s3 = S3Objects(Bucket(BUCKET, "", "http://127.0.0.1:1"))
    with pytest.raises(StoreUnavailable):
        await s3.begin("x")
