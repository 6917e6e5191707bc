"""Producers with an upload grant borrow what S3 itself takes, over a real one."""

import hashlib
import io
from contextlib import closing

import boto3
import httpx2
import pytest

from tests.e2e.test_plugins import Plugged
from tests.seaweedfs import ROLE, seaweedfs

pytestmark = pytest.mark.xdist_group("blobs")  # one S3 is enough


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running


@pytest.fixture(scope="module")
def shop(s3, shared):
    flags = ("--artifact-home", s3.place("artifacts"), "--artifact-role", ROLE)
    return Plugged(shared, *flags, env=s3.env)


class Producer:
    """Somebody with a grant."""

    def __init__(self, shop, caller):
        self._shop = shop
        self._key = shop.json("artifact", "grant", "create", caller)["key"]
        self.lent = self.call("/uploads/credentials", {}).json()

    def call(self, path, told):
        return httpx2.post(
            f"http://{self._shop.server.http}{path}",
            json=told,
            headers={"authorization": f"Bearer {self._key}"},
            timeout=30,
        )

    def announce(self, path, data):
        told = {"name": "clip", "path": path, "size": len(data)}
        begun = self.call("/uploads", {**told, "sha256": hashlib.sha256(data).hexdigest()})
        return begun.json()["artifact_id"]

    def put(self, artifact, data):
        """Put a file as any client of S3 does, a large one in parts."""
        lent = self.lent
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=lent["endpoint"],
            region_name=lent["region"],
            aws_access_key_id=lent["access_key_id"],
            aws_secret_access_key=lent["secret_access_key"],
            aws_session_token=lent["session_token"],
        )
        with closing(client):
            client.upload_fileobj(io.BytesIO(data), lent["bucket"], lent["folder"] + artifact)

    def complete(self, artifact):
        return self.call(f"/uploads/{artifact}/complete", {"parts": []})


@pytest.fixture
def producer(shop, request):
    return Producer(shop, request.node.name[:64])


def test_what_is_put_with_borrowed_credentials_is_taken_in(shop, producer):
    data = bytes(20_000_000)
    artifact = producer.announce("day/clip.mp4", data)
    early = producer.complete(artifact)
    assert (early.status_code, "has no part 1" in early.text) == (409, True)
    producer.put(artifact, data)
    assert producer.complete(artifact).status_code == 200
    assert producer.complete(artifact).status_code == 200
    producer.put(artifact, b"changed my mind")
    assert producer.complete(artifact).status_code == 200
    found = shop.json("artifact", "get", artifact)
    assert httpx2.get(found["download_url"]).content == data


def test_borrowed_credentials_are_of_the_grants_own_folder(producer):
    place = producer.lent["folder"].split("/")
    assert place[:5] == ["artifacts", "incoming", "default", "uploads", place[4]]
    assert place[4].startswith("test_borrowed")


def test_another_file_than_was_announced_is_refused(shop, producer):
    for told, put, why in ((b"abc", b"abcd", "has 4 bytes"), (b"abc", b"abd", "SHA-256")):
        artifact = producer.announce("x", told)
        producer.put(artifact, put)
        refused = producer.complete(artifact)
        assert (refused.status_code, why in refused.text) == (409, True), refused.text
        assert artifact not in str(shop.json("artifact", "list"))
    artifact = producer.announce("x", b"abc")
    producer.put(artifact, b"abc")
    assert producer.complete(artifact).status_code == 200


def test_a_server_without_a_role_lends_nothing(kit):
    refused = Producer(Plugged(kit), "camera-1").lent
    assert "the server has no --artifact-role" in refused["error"]
