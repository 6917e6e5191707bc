"""Plugins on a host: fetched once, checked, and not taken for others."""

import asyncio
import hashlib
import threading

import pytest

from agent import plugin_cache
from agent.plugin_cache import PluginCache, PluginRefused, PluginUnavailable, Trust
from generated.agent.v1 import agent_pb2
from plugins.package.packing import pack
from plugins.package.signature import new_key
from plugins.package.unpacking import unpack

MANIFEST = """
id = "greet"
version = "{version}"
type = "step"
protocol = "simple"
minimum_agent = "0.0.0"
[entry_points]
any = "main.sh"
"""


class Home:
    """A place that packages come from."""

    def __init__(self, folder):
        self.folder = folder
        self.packages = {}
        self.fetched = 0
        self.fault = None

    def publish(self, version="1.0.0", key=None):
        source = self.folder / f"greet-{version}"
        source.mkdir()
        (source / "plugin.toml").write_text(MANIFEST.format(version=version))
        (source / "main.sh").write_text("#!/bin/sh\n")
        (source / "main.sh").chmod(0o755)
        package = self.folder / f"{version}.tar.gz"
        made = pack(source, package)
        self.packages[made.sha256] = package.read_bytes()
        signature = ""
        if key is not None:
            with package.open("rb") as file:
                signature = key.sign(file, "greet")
        return agent_pb2.PluginInfo(
            plugin_id="greet",
            version=version,
            checksum=made.sha256,
            size=made.size,
            signature=signature,
            reference=f"greet@{version}",
        )

    async def fetch(self, info, target):
        self.fetched += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        target.write_bytes(self.packages[info.checksum])

    def cache(self, trust=None, **more):
        cache = PluginCache(self.folder / "cache", self.fetch, {}, trust, **more)
        cache.open()
        return cache


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


async def test_many_that_want_one_fetch_it_once(home):
    info, cache = home.publish(), home.cache()
    found = await asyncio.gather(*(cache.take(f"lease-{n}", [info]) for n in range(20)))
    assert home.fetched == 1
    assert {each["greet@1.0.0"] for each in found} == {home.folder / "cache" / info.checksum}
    assert cache.installed() == ["greet@1.0.0"]
    assert await home.cache().take("later", [info])  # a new session finds it
    assert home.fetched == 1


async def test_other_bytes_are_never_unpacked(home):
    info, cache = home.publish(), home.cache()
    home.packages[info.checksum] = b"other"
    with pytest.raises(PluginRefused, match="SHA-256"):
        await cache.take("lease", [info])
    assert list((home.folder / "cache").iterdir()) == []


async def test_a_plugin_is_not_taken_for_another(home):
    info, cache = home.publish(), home.cache()
    await cache.take("lease", [info])
    for changes in ({"plugin_id": "allowed"}, {"version": "9.0.0"}):
        lie = agent_pb2.PluginInfo()
        lie.CopyFrom(info)
        for name, value in changes.items():
            setattr(lie, name, value)
        with pytest.raises(PluginRefused, match=r"and its package is greet@1\.0\.0"):
            await cache.take("lease", [lie])


async def test_what_was_taken_unsigned_does_not_outlive_the_wish_for_signatures(home):
    key, other = new_key(), new_key()
    plain, signed = home.publish("1.0.0"), home.publish("2.0.0", key)
    keys = Trust((key.public(),))
    for info in (plain, signed):
        await home.cache(keys).take("lease", [info])
    strict = home.cache(Trust((key.public(),), required=True))
    assert strict.installed() == ["greet@2.0.0"]
    with pytest.raises(PluginRefused, match="runs only signed plugins"):
        await strict.take("lease", [plain])
    stricter = home.cache(Trust((other.public(),), required=True))
    assert stricter.installed() == []
    with pytest.raises(PluginRefused, match="not trusted here"):
        await stricter.take("lease", [signed])


async def test_what_runs_is_not_deleted(home):
    one, two = home.publish("1.0.0"), home.publish("2.0.0")
    cache = home.cache(limit=1)
    await cache.take("lease-1", [one])
    await cache.take("lease-2", [two])
    assert cache.installed() == ["greet@1.0.0", "greet@2.0.0"]
    cache.release("lease-1")
    three = home.publish("3.0.0")
    await cache.take("lease-3", [three])
    assert cache.installed() == ["greet@2.0.0", "greet@3.0.0"]


async def test_a_full_disk_and_a_silent_home_may_pass(home):
    info, cache = home.publish(), home.cache()
    for fault in (OSError(28, "No space left on device"), PluginUnavailable("away")):
        home.fault = fault
        with pytest.raises(PluginUnavailable):
            await cache.take("lease", [info])
    home.fault = None
    assert await cache.take("lease", [info])
    assert hashlib.sha256(home.packages[info.checksum]).hexdigest() == info.checksum


async def test_what_was_left_half_done_goes(home):
    folder = home.folder / "cache"
    (folder / ".unpacking-x").mkdir(parents=True)
    (folder / ".part-y").touch()
    home.cache()
    assert list(folder.iterdir()) == []


async def test_who_waited_for_a_try_that_failed_does_not_try_again(home):
    info, cache = home.publish(), home.cache()
    home.fault = PluginUnavailable("away")
    takers = (cache.take(f"lease-{n}", [info]) for n in range(20))
    found = await asyncio.gather(*takers, return_exceptions=True)
    assert [type(each) for each in found] == [PluginUnavailable] * 20
    assert home.fetched == 1
    home.fault = None
    assert await cache.take("later", [info])


async def test_who_is_cancelled_while_it_is_unpacked_leaves_nothing_half(home, monkeypatch):
    info, cache = home.publish(), home.cache()
    begun, go_on = threading.Event(), threading.Event()

    def slow(*args):
        begun.set()
        go_on.wait(10)
        return unpack(*args)

    monkeypatch.setattr(plugin_cache, "unpack", slow)
    first = asyncio.ensure_future(cache.take("first", [info]))
    await asyncio.to_thread(begun.wait, 10)
    first.cancel()
    second = asyncio.ensure_future(cache.take("second", [info]))
    await asyncio.sleep(0)
    assert home.fetched == 1  # the second waits for the first's thread
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second)["greet@1.0.0"].is_dir()
    names = {path.name for path in (home.folder / "cache").iterdir()}
    assert names == {info.checksum, f"{info.checksum}.signed"}


async def test_a_disk_that_is_full_after_unpacking_spoils_the_plugin_for_no_other(home):
    info, cache = home.publish(), home.cache()
    signed = home.folder / "cache" / f"{info.checksum}.signed"
    signed.mkdir()  # nothing can be written there
    with pytest.raises(PluginUnavailable, match=r"plugin greet@1\.0\.0"):
        await cache.take("lease", [info])
    signed.rmdir()
    assert await cache.take("lease", [info])
