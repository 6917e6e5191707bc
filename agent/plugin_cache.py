"""The plugins on this host: each fetched once, checked before it is unpacked, kept while used."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog
from semver import Version

from agent.spool import is_full
from agent.version import VERSION
from generated.agent.v1 import agent_pb2
from plugins.package.manifest import MANIFEST, MAX_MANIFEST, parse_manifest
from plugins.package.refusal import PackageRefused
from plugins.package.signature import PublicKey, verify
from plugins.package.unpacking import UNFINISHED, unpack

LIMIT = 2 * 1024**3
"""Bytes of unpacked plugins that are kept; what runs may be more."""

_PARTIAL = ".part-"
_SIGNED = ".signed"
"""Ending of the file beside an unpacked plugin that says which key signed it."""

_DIGEST_LETTERS = 64

_log = structlog.get_logger("agent.plugin_cache")

Result = TypeVar("Result")

Fetch = Callable[[agent_pb2.PluginInfo, Path], Awaitable[None]]
"""Brings a package's bytes into a file; goes on where what is there ends.

Raises PluginRefused, PluginUnavailable or OSError.
"""


class PluginRefused(Exception):  # noqa: N818 (it is the task's failure)
    """A plugin must not, or can never, run here; the message says why."""


class PluginUnavailable(Exception):  # noqa: N818 (it may pass)
    """A plugin cannot be had now; the message says why."""


@dataclass(frozen=True)
class Trust:
    """Whose plugins run here: any without keys, unless they have to be signed."""

    keys: tuple[PublicKey, ...] = ()
    required: bool = False


@dataclass(slots=True)
class _Kept:
    """One unpacked plugin."""

    folder: Path
    name: str
    """Its id@version."""
    size: int
    used: float


@dataclass
class _Turn:
    """Some that want the same plugin at once: one gets it, the others wait for what comes of it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failure: Exception | None = None


class PluginCache:
    """See the module. One agent's own: nobody else writes into its folder."""

    def __init__(
        self,
        folder: Path,
        fetch: Fetch,
        bundled: Mapping[str, Path],
        trust: Trust | None = None,
        limit: int = LIMIT,
    ) -> None:
        self._folder = folder
        self._fetch = fetch
        self._bundled = bundled
        self._trust = trust or Trust()
        self._limit = limit
        self._kept: dict[str, _Kept] = {}
        self._held: dict[str, set[str]] = {}
        """By lease the digests of what it uses."""
        self._turns: dict[str, _Turn] = {}
        """By digest, while it is being had."""
        self.changed: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Finds what earlier sessions kept, and deletes what they left half done.

        Raises:
            OSError: The folder cannot be made or read.
        """
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if path.name.startswith((UNFINISHED, _PARTIAL)):
                _remove(path)
            elif path.name.endswith(_SIGNED):
                continue
            elif len(path.name) == _DIGEST_LETTERS:
                if self._trust.required and self._signer(path.name) not in self._trusted:
                    _remove(path)  # it was taken when nobody asked who had signed it
                    continue
                try:
                    manifest = parse_manifest((path / MANIFEST).read_bytes()[: MAX_MANIFEST + 1])
                except (OSError, PackageRefused):
                    _remove(path)
                    continue
                name = f"{manifest.id}@{manifest.version}"
                self._kept[path.name] = _Kept(path, name, _size(path), path.stat().st_mtime)

    @property
    def _trusted(self) -> set[str]:
        return {key.name for key in self._trust.keys}

    def _signer(self, digest: str) -> str:
        """Returns the id of the key that signed what was unpacked, as it was found then."""
        try:
            return (self._folder / f"{digest}{_SIGNED}").read_text("utf-8").strip()
        except OSError:
            return ""

    def installed(self) -> list[str]:
        """Returns what is here, as id@version, in order."""
        return sorted({kept.name for kept in self._kept.values()})

    async def take(self, lease: str, infos: Sequence[agent_pb2.PluginInfo]) -> dict[str, Path]:
        """Returns each plugin's folder by its reference, fetched if need be; held until `release`.

        Raises:
            PluginRefused: One must not, or can never, run here.
            PluginUnavailable: One cannot be had now.
        """
        found: dict[str, Path] = {}
        try:
            for info in infos:
                if info.checksum:
                    found[info.reference] = await self._one(lease, info)
                elif info.plugin_id in self._bundled:
                    found[info.reference] = self._bundled[info.plugin_id]
                else:
                    raise PluginRefused(f"this agent has no plugin {info.plugin_id} of its own")
        except OSError as error:
            self.release(lease)
            why = "the disk is full" if is_full(error) else error.strerror or str(error)
            raise PluginUnavailable(f"plugin {info.reference}: {why}") from error
        except BaseException:
            self.release(lease)
            raise
        return found

    def hold(self, lease: str, folders: Iterable[str]) -> None:
        """Holds the folders that a task of an earlier session uses."""
        self._held.setdefault(lease, set()).update(Path(folder).name for folder in folders)

    def release(self, lease: str) -> None:
        """Lets go of what a lease holds."""
        self._held.pop(lease, None)

    async def _one(self, lease: str, info: agent_pb2.PluginInfo) -> Path:
        digest = info.checksum.lower()
        if len(digest) != _DIGEST_LETTERS or set(digest) - set("0123456789abcdef"):
            raise PluginRefused(f"plugin {info.reference}: {info.checksum[:80]!r} is no SHA-256")
        self._held.setdefault(lease, set()).add(digest)
        kept = await self._in_turn(info, digest)
        if kept.name != f"{info.plugin_id}@{info.version}":
            raise PluginRefused(
                f"plugin {info.reference}: the control plane says that it is"
                f" {info.plugin_id}@{info.version}, and its package is {kept.name}"
            )
        kept.used = time.time()
        with contextlib.suppress(OSError):
            os.utime(kept.folder)
        return kept.folder

    async def _in_turn(self, info: agent_pb2.PluginInfo, digest: str) -> _Kept:
        """Gets a plugin, unless it is here; who waited for a try that failed does not try again."""
        turn = self._turns.setdefault(digest, _Turn())
        async with turn.lock:
            if turn.failure is not None:
                raise turn.failure
            kept = self._kept.get(digest)
            if kept is None or not kept.folder.is_dir():
                try:
                    kept = self._kept[digest] = await self._get(info, digest)
                except Exception as error:
                    turn.failure = error
                    del self._turns[digest]
                    raise
                await self._make_room()
                self.changed()
        self._turns.pop(digest, None)
        return kept

    async def _get(self, info: agent_pb2.PluginInfo, digest: str) -> _Kept:
        partial = self._folder / f"{_PARTIAL}{digest}"
        target = self._folder / digest
        if self._trust.required and not info.signature:
            raise PluginRefused(
                f"plugin {info.reference}: this agent runs only signed plugins; publish a version "
                "that is: muster plugin pack FOLDER --sign KEY"
            )
        try:
            await self._fetch(info, partial)
            return await _to_its_end(lambda: self._unpack(info, digest, partial, target))
        except PackageRefused as error:
            _log.error("plugin refused", plugin=info.reference, reason=str(error))
            raise PluginRefused(f"plugin {info.reference}: {error}") from error
        finally:
            # Cut downloads were gone on with inside of `fetch`; what is left now helps nobody.
            partial.unlink(missing_ok=True)

    def _unpack(
        self, info: agent_pb2.PluginInfo, digest: str, partial: Path, target: Path
    ) -> _Kept:
        _remove(target)  # of a task that was cancelled while it was unpacked
        with partial.open("rb") as file:
            signer = ""
            if self._trust.keys and (self._trust.required or info.signature):
                signer = verify(file, info.signature, self._trust.keys)[0].name
            package = unpack(file, target, digest)
        record = self._folder / f"{digest}{_SIGNED}"
        record.write_text(signer, encoding="utf-8")
        manifest = package.manifest
        try:
            if manifest.minimum_agent > _own_version():
                raise PluginRefused(
                    f"plugin {info.reference} needs an agent of version {manifest.minimum_agent} or"
                    f" later; this one is {VERSION}"
                )
            if manifest.id != info.plugin_id:
                raise PluginRefused(f"plugin {info.reference}: the package is of {manifest.id}")
        except PluginRefused:
            _remove(target)
            raise
        return _Kept(target, f"{manifest.id}@{manifest.version}", package.unpacked, time.time())

    async def _make_room(self) -> None:
        """Deletes what was not used for longest, and is not in use, while there is too much."""
        held = set().union(*self._held.values())
        total = sum(kept.size for kept in self._kept.values())
        for digest, kept in sorted(self._kept.items(), key=lambda item: item[1].used):
            if total <= self._limit:
                return
            if digest not in held:
                del self._kept[digest]
                trash = _out_of_the_way(kept.folder)
                (self._folder / f"{digest}{_SIGNED}").unlink(missing_ok=True)
                total -= kept.size
                await asyncio.to_thread(shutil.rmtree, trash, ignore_errors=True)


def _own_version() -> Version:
    own = Version.parse(VERSION)
    return own if own > Version(0) else Version(999)  # run from a checkout


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


async def _to_its_end(work: Callable[[], Result]) -> Result:
    """Does work in a thread; who is cancelled meanwhile waits for its end.

    Raises:
        Exception: What the work raised.
    """
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await working
        raise


def _remove(path: Path) -> None:
    """Deletes a file or folder."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(_out_of_the_way(path), ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _out_of_the_way(folder: Path) -> Path:
    """Renames a folder in one step, so that half of one is never found; returns where it is."""
    if folder.name.startswith(UNFINISHED):
        return folder
    with contextlib.suppress(OSError):
        return folder.rename(folder.with_name(f"{UNFINISHED}{folder.name}-{time.monotonic_ns()}"))
    return folder
