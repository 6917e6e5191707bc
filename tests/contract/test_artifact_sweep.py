"""What becomes of artifacts in time, over real databases, a folder and a real S3."""

import asyncio
import hashlib

import pytest

from server.domain.artifact import ABANDONED, Wanted
from server.domain.errors import StoreUnavailable
from server.domain.granting_uploads import CreateUploadGrant
from server.domain.moment import DAY
from server.domain.policy import Policy
from server.engine.artifact_sweep import ArtifactSweep
from server.engine.artifacts import Artifacts, Limits
from server.engine.url_signer import UrlSigner
from server.engine.writer import Writer
from server.stores.sql.reader import SqlReader
from server.stores.sql.source import SqlSource
from tests.contract.test_objects import bucket, folder, put, s3
from tests.fakes.clock import HandClock
from tests.fakes.core import NAMESPACE
from tests.fakes.shop import NoClaims

__all__ = ["bucket", "folder", "s3"]

pytestmark = pytest.mark.xdist_group("blobs")  # one S3 is enough

DATA = b"what a producer hands in"


class Desk:
    """Somebody with an upload grant, and the sweep."""

    def __init__(self, database, writer, store, clock):
        reader = SqlReader(database)
        self.clock = clock
        self.store = store
        self.writer = writer
        self.reader = reader
        self.artifacts = Artifacts(
            writer, reader, store, UrlSigner(lambda: [b"key"], clock), clock, Limits()
        )
        self.sweeper = ArtifactSweep(writer, reader, store, clock)

    async def begin(self, path):
        wanted = Wanted("clip", path, len(DATA), hashlib.sha256(DATA).hexdigest())
        return (await self.artifacts.begin(NAMESPACE, wanted, grant_id="grant")).artifact

    async def hand_in(self, path):
        artifact = await self.begin(path)
        part = await put(self.store, artifact.blob, artifact.upload, 1, DATA)
        return await self.artifacts.complete(artifact, [part])

    async def listed(self):
        return [each.path for each in await self.reader.artifacts(NAMESPACE)]


@pytest.fixture(params=["folder", "bucket"])
async def desk(request, sql_database, monkeypatch):
    clock = HandClock()
    monkeypatch.setattr(SqlSource, "now", lambda _source: clock.now())
    writer = Writer(sql_database, clock, Policy(), NoClaims(), batch_limit=100, queue_limit=1000)
    running = asyncio.ensure_future(writer.run())
    await writer.submit(
        CreateUploadGrant(NAMESPACE, "grant", "digest", "camera", "me", expire_days=2)
    )
    yield Desk(sql_database, writer, request.getfixturevalue(request.param), clock)
    writer.stop()
    await running


async def test_what_has_expired_goes_with_its_bytes(desk):
    kept = await desk.hand_in("day/clip")
    desk.clock.advance(2 * DAY - 1)
    assert await desk.sweeper.sweep() == 0
    assert await desk.listed() == ["day/clip"]
    desk.clock.advance(1)
    assert await desk.sweeper.sweep() == 1
    assert await desk.listed() == []
    assert await desk.store.size(kept.blob) is None
    assert await desk.sweeper.sweep() == 0


async def test_an_upload_that_goes_no_further_is_given_up(desk):
    begun = await desk.begin("half")
    await put(desk.store, begun.blob, begun.upload, 1, DATA)
    desk.clock.advance(ABANDONED - 1)
    assert await desk.sweeper.sweep() == 0
    desk.clock.advance(1)
    assert await desk.sweeper.sweep() == 1
    assert await desk.store.parts(begun.blob, begun.upload) is None


async def test_what_cannot_be_deleted_now_is_deleted_later_and_seen_by_nobody(desk, monkeypatch):
    kept = await desk.hand_in("clip")
    desk.clock.advance(2 * DAY)

    async def away(_name):
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "delete", away)
        assert await desk.sweeper.sweep() == 0
    assert await desk.listed() == []
    assert await desk.store.size(kept.blob) == len(DATA)
    assert await desk.sweeper.sweep() == 1
    assert await desk.store.size(kept.blob) is None


async def test_what_was_put_and_never_taken_in_goes_after_two_days(desk, monkeypatch):
    asked = []

    async def delete_older(place, before):
        asked.append((place, before))
        return 0

    monkeypatch.setattr(desk.store, "delete_older", delete_older, raising=False)
    await desk.sweeper.sweep_incoming()
    lends = getattr(desk.store, "lends", False)
    assert asked == ([("incoming", desk.clock.now() - 2 * ABANDONED)] if lends else [])


async def test_a_namespace_is_read_page_by_page_and_its_grants_by_their_bytes(desk):
    paths = [f"clip-{number}" for number in range(5)]
    for path in paths:
        await desk.hand_in(path)
    await desk.begin("on its way")
    found, after = [], 0
    while page := await desk.reader.artifacts(NAMESPACE, after=after, limit=2):
        assert len(page) <= 2
        found += [each.path for each in page]
        after = page[-1].key
    assert found == paths
    assert await desk.reader.uploaded_bytes(NAMESPACE) == {"grant": 6 * len(DATA)}
    assert await desk.reader.uploaded_bytes("elsewhere") == {}
