"""What the BlobStore promises."""

import errno
import os
import shutil

import pytest

from server.domain.errors import StoreUnavailable
from server.stores.blobs.folder import FolderBlobs


@pytest.fixture(params=["folder"])
def make_blobs(request, tmp_path):
    """Return a function that opens every BlobStore anew over the same place."""
    return {"folder": lambda: FolderBlobs(tmp_path / "blobs")}[request.param]


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


async def test_a_folder_belongs_to_one_database(tmp_path):
    blobs = FolderBlobs(tmp_path)
    await blobs.put("logs/earlier", b"data")
    assert await blobs.take("one")
    assert await FolderBlobs(tmp_path).take("one")
    assert not await FolderBlobs(tmp_path).take("other")
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
