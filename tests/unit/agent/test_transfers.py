"""Bytes between a host and a store that is slow, breaks off, refuses and lies."""

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager

import pytest

from agent.artifacts import transfer, uploading
from agent.artifacts.fetching import Fetcher
from agent.artifacts.transfer import CutError, ExpiredError, RefusedError, get, open_client
from agent.artifacts.uploading import Uploader
from agent.collecting import CannotCollect
from agent.executor import Identity
from agent.plugin_cache import PluginRefused, PluginUnavailable
from agent.plugin_fetching import PluginFetcher
from agent.preparing import CannotPrepare
from generated.agent.v1 import agent_pb2
from generated.artifact.v1 import artifact_pb2

DATA = os.urandom(100_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


class Store:
    """A server of one file over HTTP that does to each request what it is told, in turn."""

    def __init__(self):
        self.asked = []
        self.faults = []
        self.url = ""

    @asynccontextmanager
    async def open(self):
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/file"
        async with server:
            yield self

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.asked.append(fields)
        await reader.readexactly(int(fields.get("content-length", 0)))
        fault = self.faults.pop(0) if self.faults else "whole"
        start = int(fields.get("range", "bytes=0-")[6:-1])
        body = DATA[start:]
        if isinstance(fault, int):
            writer.write(f"HTTP/1.1 {fault} X\r\ncontent-length: 3\r\n\r\nwhy".encode())
        else:
            size = len(body) + (1000 if fault == "more" else 0)
            status = "206 P" if start else "200 OK"
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {size}\r\n\r\n".encode())
            if fault == "half":
                body = body[: len(body) // 2]
            elif fault == "lie":
                body = bytes(len(body))
            writer.write(body + bytes(1000 if fault == "more" else 0))
        writer.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(transfer, "wait_exponential", lambda *_, **__: lambda _state: 0)
    monkeypatch.setattr(uploading, "RENEWAL_PAUSE", 0)


@pytest.fixture
async def store():
    async with Store().open() as running:
        yield running


@pytest.fixture
async def client():
    async with open_client(None) as opened:
        yield opened


def plugin(store, **fields):
    told = {"plugin_id": "greet", "version": "1.0.0", "reference": "greet@1", "size": len(DATA)}
    location = agent_pb2.PLUGIN_LOCATION_STORAGE
    told |= {"checksum": DIGEST, "location": location, "download_url": store.url}
    return agent_pb2.PluginInfo(**told | fields)


async def test_a_download_goes_on_where_it_was_cut_off_as_long_as_it_comes_on(
    store, client, tmp_path
):
    store.faults = ["half"] * 12  # twice as many as may fail in a row
    target = tmp_path / "package"
    await PluginFetcher(None, client).fetch(plugin(store), target)
    assert target.read_bytes() == DATA
    assert len(store.asked) == 13
    assert all(fields["accept-encoding"] == "identity" for fields in store.asked)


async def test_a_store_that_gives_nothing_is_not_asked_for_ever(store, client, tmp_path):
    store.faults = [503] * 100
    with pytest.raises(PluginUnavailable, match=r"plugin greet@1: the store answers 503"):
        await PluginFetcher(None, client).fetch(plugin(store), tmp_path / "package")
    assert len(store.asked) == transfer.ATTEMPTS


async def test_what_was_cut_behind_its_last_byte_is_whole(store, client, tmp_path):
    target = tmp_path / "package"
    target.write_bytes(DATA)
    await PluginFetcher(None, client).fetch(plugin(store), target)
    assert store.asked == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (403, PluginUnavailable),  # the next assignment brings a URL that counts
        (404, PluginRefused),
        (410, PluginRefused),
        (302, PluginRefused),
        ("more", PluginRefused),
    ],
)
async def test_what_no_other_try_makes_better_is_told_at_once(
    store, client, tmp_path, fault, error
):
    store.faults = [fault]
    with pytest.raises(error, match="plugin greet@1: the store"):
        await PluginFetcher(None, client).fetch(plugin(store), tmp_path / "package")
    assert len(store.asked) == 1


@pytest.mark.parametrize("url", ["http://there:port/x", "ftp://there/x", "nothing"])
async def test_a_url_that_is_none_is_refused(store, client, tmp_path, url):
    with pytest.raises(PluginRefused, match="the store's URL"):
        await PluginFetcher(None, client).fetch(plugin(store, download_url=url), tmp_path / "p")


async def test_a_store_that_is_away_is_a_cut(client, tmp_path):
    with pytest.raises(CutError):
        await get(client, "http://127.0.0.1:1/file", tmp_path / "file", 10)


async def test_a_file_with_other_bytes_never_lies_in_a_workspace(store, client, tmp_path):
    store.faults = ["lie"]
    wanted = agent_pb2.ArtifactInput(
        artifact_id="a", path="in/file", size=len(DATA), sha256=DIGEST, download_url=store.url
    )
    with pytest.raises(CannotPrepare, match="in/file: the store gives other bytes") as refused:
        await Fetcher(client).fetch([wanted], tmp_path)
    assert not refused.value.elsewhere
    assert list((tmp_path / "in").iterdir()) == []
    await Fetcher(client).fetch([wanted], tmp_path)
    assert (tmp_path / "in" / "file").read_bytes() == DATA


class Plane:
    """A control plane that signs URLs of a store."""

    def __init__(self, store):
        self._store = store
        self.signed = 0

    async def begin_upload(self, _request):
        return artifact_pb2.BeginUploadResponse(artifact_id="a", part_size=len(DATA))

    async def sign_parts(self, _request):
        self.signed += 1
        return artifact_pb2.SignPartsResponse(
            urls=[artifact_pb2.PartUrl(number=1, url=self._store.url)]
        )

    async def complete_upload(self, _request):
        return artifact_pb2.CompleteUploadResponse()


@pytest.fixture
def collect(store, client, tmp_path):
    """Returns a function that keeps one file."""
    (tmp_path / "file").write_bytes(DATA)
    plane = Plane(store)

    async def run():
        wanted = {"name": "kept", "path": "file", "destination": "", "expire_days": 0}
        identity = Identity("lease", "task", 1, 1.0, stop_with_lease=False)
        await Uploader(plane, client, tmp_path).collect(identity, tmp_path, [wanted])
        return plane.signed

    return run


async def test_a_url_that_has_expired_is_asked_for_anew(store, collect):
    store.faults = [403, 401, 503, "whole"]
    assert await collect() == 3
    assert len(store.asked) == 4


async def test_a_store_that_refuses_every_url_may_be_better_another_time(store, collect):
    store.faults = [403] * 100
    with pytest.raises(CannotCollect, match="refuses every URL") as given_up:
        await collect()
    assert given_up.value.elsewhere
    assert len(store.asked) == uploading.RENEWALS


@pytest.mark.parametrize(("status", "error"), [(401, ExpiredError), (400, RefusedError)])
async def test_refusals_are_told_apart(store, client, tmp_path, status, error):
    store.faults = [status]
    with pytest.raises(error):
        await get(client, store.url, tmp_path / "file", len(DATA))
