"""What every home of plugins promises, over real servers."""

import hashlib
import os
import re
import uuid

import pytest

from server.domain.errors import DamagedPlugin, StoreUnavailable
from server.engine.plugin_shelf import PluginShelf
from server.stores.blobs.place import Bucket
from server.stores.interfaces import HomeKind
from server.stores.plugin_homes.folder import FolderHome
from server.stores.plugin_homes.place import parse_home
from server.stores.plugin_homes.registry import RegistryHome, Repository
from server.stores.plugin_homes.s3 import S3Home
from tests.docker_registry import docker_registry, program
from tests.seaweedfs import BUCKET, seaweedfs

pytestmark = pytest.mark.xdist_group("blobs")  # one S3 is enough


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as store:
        yield store


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    if program() is None:
        pytest.skip("docker-registry is not in .venv/bin and not on PATH; `make programs` says why")
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def in_folder(tmp_path):
    folder = tmp_path / "home"

    def tamper(sha256, data):
        (folder / f"{sha256}.tar.gz").write_bytes(data)

    return FolderHome(folder), tamper


@pytest.fixture
def in_s3(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    prefix = f"plugins/{uuid.uuid4()}"
    home = S3Home(Bucket(BUCKET, prefix, s3.endpoint))

    def tamper(sha256, data):
        home._client.put_object(Bucket=BUCKET, Key=f"{prefix}/{sha256}.tar.gz", Body=data)

    return home, tamper


@pytest.fixture
def in_registry(registry):
    name = f"team/plugins-{uuid.uuid4().hex[:8]}"
    own = Repository(registry.host, name, True, registry.user, registry.password)

    def tamper(sha256, data):
        blobs = registry.folder / "docker/registry/v2/blobs/sha256"
        (blobs / sha256[:2] / sha256 / "data").write_bytes(data)

    return RegistryHome(own), tamper


@pytest.fixture(params=["folder", "s3", "registry"])
def place(request):
    """Every home, each with a function that puts other bytes in a package's place."""
    return request.getfixturevalue(f"in_{request.param}")


@pytest.fixture
def home(place):
    return place[0]


@pytest.fixture
def package(tmp_path):
    """A package's address and file; a megabyte that nobody had before."""
    data = os.urandom(1024 * 1024)
    file = tmp_path / "package.tar.gz"
    file.write_bytes(data)
    return hashlib.sha256(data).hexdigest(), file


async def test_what_was_put_is_there_for_whoever_comes_later(home, package, tmp_path):
    sha256, file = package
    await home.put(sha256, file)
    await home.put(sha256, file)  # once more is no fault
    assert await home.fetch(sha256, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == file.read_bytes()


async def test_what_was_never_put_is_not_there(home, tmp_path):
    assert not await home.fetch("0" * 64, tmp_path / "got")


async def test_only_object_storage_can_be_asked_by_anybody(home, package):
    import httpx2

    sha256, file = package
    await home.put(sha256, file)
    url = await home.url(sha256, 60)
    assert bool(url) == (home.kind is HomeKind.STORAGE)
    if url:
        assert httpx2.get(url).content == file.read_bytes()
        assert httpx2.get(url.replace("Signature=", "Signature=0")).status_code == 403


async def test_other_bytes_than_were_published_are_refused(place, package, tmp_path):
    home, tamper = place
    sha256, file = package
    await home.put(sha256, file)
    tamper(sha256, b"something else")
    shelf = PluginShelf(tmp_path / "shelf", home)
    with pytest.raises(DamagedPlugin, match="other"):
        await shelf.get(sha256)
    assert list((tmp_path / "shelf").iterdir()) == []
    tamper(sha256, file.read_bytes())
    found = await shelf.get(sha256)
    assert found.read_bytes() == file.read_bytes()
    found.write_bytes(b"spoilt")
    assert (await PluginShelf(tmp_path / "shelf", home).get(sha256)).read_bytes() == (
        file.read_bytes()
    )


async def test_a_registry_that_gives_another_manifest_is_refused(in_registry, package, tmp_path):
    home, _ = in_registry
    sha256, file = package
    await home.put(sha256, file)
    registry = home._registry()
    container = registry.get_container(home._container(sha256))
    manifest = registry.get_manifest(container)
    manifest["layers"][0]["digest"] = manifest["config"]["digest"]
    registry.upload_manifest(manifest, container)
    with pytest.raises(StoreUnavailable, match="of another package"):
        await home.fetch(sha256, tmp_path / "got")


async def test_a_wrong_login_is_told(registry, package):
    home = RegistryHome(Repository(registry.host, "team/x", True, registry.user, "wrong"))
    with pytest.raises(StoreUnavailable):
        await home.put(*package)


async def test_a_home_that_is_away_is_unavailable(package, tmp_path):
    for home in (
        RegistryHome(Repository("127.0.0.1:1", "x", insecure=True)),
        FolderHome(tmp_path / "package.tar.gz" / "x"),
    ):
        with pytest.raises(StoreUnavailable):
            await home.put(*package)


async def test_the_shelf_keeps_so_much_and_no_more(in_folder, tmp_path):
    home, _ = in_folder
    shelf = PluginShelf(tmp_path / "shelf", home, limit=250)
    known = []
    for number in range(4):
        file = tmp_path / f"{number}"
        file.write_bytes(os.urandom(100))
        known.append(hashlib.sha256(file.read_bytes()).hexdigest())
        await home.put(known[-1], file)
        os.utime(await shelf.get(known[-1]), (number, number))
    left = {path.name.partition(".")[0] for path in (tmp_path / "shelf").iterdir()}
    assert left == set(known[2:])
    assert await shelf.get(known[0])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("oci://host", "oci://HOST"),
        ("oci://host/UPPER", "lower case"),
        ("oci://host/x?a=1", "knows login and insecure"),
        ("s3://B", "name of a bucket"),
    ],
)
def test_a_malformed_place_is_told(text, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_home(text)
