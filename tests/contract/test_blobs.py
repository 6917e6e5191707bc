"""What the BlobStore promises."""

import asyncio
import errno
import os
import shutil
import uuid

import pytest

from server.domain.errors import StoreUnavailable
from server.stores.blobs.folder import FolderBlobs
from server.stores.blobs.place import Bucket
from server.stores.blobs.s3 import S3Blobs
from tests.seaweedfs import BUCKET, seaweedfs

pytestmark = pytest.mark.xdist_group("blobs")  # one S3 is enough


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A real S3, started when the first test asks."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as store:
        yield store


@pytest.fixture
def keys(s3, monkeypatch):
    """Let boto3 find the store's keys where people have them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)


@pytest.fixture
def make_folder(tmp_path):
    return lambda: FolderBlobs(tmp_path / "blobs")


@pytest.fixture
def make_s3(s3, keys):
    """Return a function that opens blobs over one new prefix of the bucket."""
    bucket = Bucket(BUCKET, f"tests/{uuid.uuid4()}", s3.endpoint)
    opened = []

    def make():
        opened.append(S3Blobs(bucket))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture(params=["folder", "s3"])
def make_blobs(request):
    """Return a function that opens every BlobStore anew over the same place."""
    return request.getfixturevalue(f"make_{request.param}")


async def test_a_blob_is_there_for_whoever_comes_later(make_blobs):
    await make_blobs().put("logs/a/1", b"0123456789")
    assert await make_blobs().get("logs/a/1", 0, 10) == b"0123456789"
    assert await make_blobs().get("logs/a/1", 3, 4) == b"3456"


async def test_less_is_given_where_less_is_there(make_blobs):
    blobs = make_blobs()
    await blobs.put("logs/1", b"0123")
    assert await blobs.get("logs/1", 2, 10) == b"23"
    assert await blobs.get("logs/1", 9, 1) == b""
    assert await blobs.get("logs/none", 0, 1) == b""


async def test_what_cannot_be_read_now_is_not_taken_for_gone(tmp_path):
    blobs = FolderBlobs(tmp_path / "blobs")
    await blobs.put("logs/a", b"data")
    (tmp_path / "blobs" / "logs").rename(tmp_path / "logs")
    (tmp_path / "blobs" / "logs").touch()  # a folder's place is taken: any error but "not there"
    with pytest.raises(StoreUnavailable):
        await blobs.get("logs/a", 0, 4)
    (tmp_path / "blobs").rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable):
        await blobs.get("logs/a", 0, 4)


async def test_a_place_belongs_to_one_database(make_blobs):
    blobs = make_blobs()
    await blobs.put("logs/earlier", b"data")
    assert await blobs.take("one")
    assert await make_blobs().take("one")
    assert not await make_blobs().take("other")
    assert await blobs.take("one")
    assert await blobs.names("logs/") == ["logs/earlier"]


async def test_a_blob_that_found_no_room_leaves_nothing(tmp_path, monkeypatch):
    blobs = FolderBlobs(tmp_path)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("server.stores.blobs.folder.os.fsync", full)
    with pytest.raises(StoreUnavailable):
        await blobs.put("logs/1", b"x" * 1000)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_what_a_killed_writer_left_goes_by_and_by(tmp_path):
    blobs = FolderBlobs(tmp_path)
    fresh, old = tmp_path / "1.partial", tmp_path / "2.partial"
    for path in (fresh, old):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    assert await blobs.names("") == []
    assert (fresh.exists(), old.exists()) == (True, False)


async def test_names_are_listed_by_their_beginning_in_order(make_blobs):
    blobs = make_blobs()
    assert await blobs.names("") == []
    for name in ("logs/b/2", "logs/a/1", "other/1"):
        await blobs.put(name, b"x")
    assert await blobs.names("logs/") == ["logs/a/1", "logs/b/2"]
    assert await blobs.names("logs/b") == ["logs/b/2"]
    assert await blobs.names("none") == []


async def test_the_same_name_again_replaces_and_delete_removes(make_blobs):
    blobs = make_blobs()
    await blobs.put("a", b"one")
    await blobs.put("a", b"two")
    assert await blobs.get("a", 0, 9) == b"two"
    await blobs.delete("a")
    await blobs.delete("a")
    assert await blobs.names("") == []


async def test_a_folder_tells_what_room_its_disk_has(tmp_path):
    room = await FolderBlobs(tmp_path / "not" / "there").room()
    assert 0 <= room.free <= room.total
    assert room.total == shutil.disk_usage(tmp_path).total


async def test_large_and_empty_blobs_come_back_whole(make_blobs):
    blobs = make_blobs()
    data = os.urandom(9 << 20)
    await blobs.put("large", data)
    await blobs.put("empty", b"")
    assert await blobs.get("large", 0, len(data)) == data
    assert await blobs.get("large", 8 << 20, 2 << 20) == data[8 << 20 :]
    assert await blobs.get("empty", 0, 1) == b""
    assert await blobs.get("large", 0, 0) == b""


async def test_prefixes_of_a_bucket_do_not_see_each_other(s3, keys):
    base = f"tests/{uuid.uuid4()}"
    here, there = (S3Blobs(Bucket(BUCKET, f"{base}/{name}", s3.endpoint)) for name in ("a", "ab"))
    await here.put("1", b"here")
    await there.put("1", b"there")
    assert await here.names("") == ["1"]
    assert await here.get("1", 0, 9) == b"here"
    assert await there.room() is None
    here.close()
    there.close()


async def test_more_names_than_one_answer_holds_are_all_listed(make_s3, monkeypatch):
    blobs = make_s3()
    for number in range(5):
        await blobs.put(f"logs/{number}", b"x")
    paginate = blobs._client.get_paginator("list_objects_v2").paginate(
        Bucket=blobs._bucket, Prefix=blobs._prefix, PaginationConfig={"PageSize": 2}
    )
    monkeypatch.setattr(blobs, "_pages", lambda _prefix: paginate)
    assert await blobs.names("") == [f"logs/{number}" for number in range(5)]


async def test_wrong_key_is_told_and_is_not_taken_for_gone(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    blobs = S3Blobs(Bucket(BUCKET, "", s3.endpoint))
    with pytest.raises(StoreUnavailable, match="signature"):
        await blobs.put("a", b"x")
    with pytest.raises(StoreUnavailable):
        await blobs.get("a", 0, 1)
    with pytest.raises(StoreUnavailable):
        await blobs.names("")
    blobs.close()


async def test_bucket_that_is_not_there_is_told(s3, keys):
    blobs = S3Blobs(Bucket("not-there", "", s3.endpoint))
    with pytest.raises(StoreUnavailable):
        await blobs.get("a", 0, 1)
    blobs.close()


class Faulty:
    """An HTTP server on loopback that answers each connection with the next of its answers."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        host, port = self.server.sockets[0].getsockname()
        self.endpoint = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def _answer(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        await writer.drain()
        writer.close()


SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
WHOLE = b"HTTP/1.1 206 Partial\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndata"
CUT = WHOLE[:-2]


async def test_store_that_is_busy_is_asked_again(keys):
    async with Faulty(SLOW_DOWN, b"", WHOLE) as store:
        blobs = S3Blobs(Bucket(BUCKET, "", store.endpoint))
        assert await blobs.get("a", 0, 4) == b"data"
        assert store.asked == 3
        blobs.close()


async def test_answer_that_was_cut_is_asked_for_again(keys):
    async with Faulty(CUT, WHOLE) as store:
        blobs = S3Blobs(Bucket(BUCKET, "", store.endpoint))
        assert await blobs.get("a", 0, 4) == b"data"
        blobs.close()


@pytest.mark.parametrize("answer", [SLOW_DOWN, CUT], ids=["busy", "cut"])
async def test_store_that_stays_bad_is_given_up_and_never_believed(keys, answer):
    async with Faulty(answer) as store:
        blobs = S3Blobs(Bucket(BUCKET, "", store.endpoint))
        with pytest.raises(StoreUnavailable):
            await blobs.get("a", 0, 4)
        assert store.asked <= 3
        blobs.close()
