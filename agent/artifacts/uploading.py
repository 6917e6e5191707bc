"""Brings what a task leaves to the store, before its end is told."""

import asyncio
import hashlib
import os
import tempfile
import threading
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio
import httpx2

from agent.artifacts.finding import Found, TooManyFilesError, find, open_inside
from agent.artifacts.packing import pack
from agent.artifacts.transfer import CutError, ExpiredError, RefusedError, all_of, put, trying
from agent.collecting import CannotCollect
from agent.control_plane import ControlPlane
from agent.executor import Identity
from agent.rpc import is_transient
from agent.spool import is_full
from agent.supervisor.frames import Message
from generated.artifact.v1 import artifact_pb2

Answer = TypeVar("Answer")

PARTS_AT_ONCE = 3
FILES_AT_ONCE = 4
URLS_AT_ONCE = 50
RENEWALS = 8
"""How often URLs that do not count any more are asked for again."""

RENEWAL_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds before that, from the first time to the last."""

_REMARKS = 20
_READ = 1024 * 1024


class Uploader:
    """See `agent.collecting.Collector`."""

    def __init__(self, plane: ControlPlane, client: httpx2.AsyncClient, scratch: Path) -> None:
        """Archives are packed in the folder `scratch`, as files without a name."""
        self._scratch = scratch
        self._plane = plane
        self._client = client
        self._files = asyncio.Semaphore(FILES_AT_ONCE)
        self._parts = asyncio.Semaphore(PARTS_AT_ONCE)

    async def collect(
        self, identity: Identity, workspace: Path, wanted: Sequence[Message]
    ) -> list[str]:
        """See Collector."""
        remarks: list[str] = []
        seen: set[tuple[str, str]] = set()
        for archive in _archives(wanted):
            remarks += await self._store_archive(identity, workspace, archive)
        for artifact in wanted:
            if artifact.get("archive"):
                continue
            try:
                findings = await asyncio.to_thread(
                    find,
                    workspace,
                    artifact["path"],
                    dot_files=not artifact.get("no_dot_files"),
                )
            except TooManyFilesError as error:
                raise CannotCollect(f"artifact {artifact['name']}: {error}", elsewhere=False) from (
                    error
                )
            except OSError as error:
                why = f"artifact {artifact['name']}: the workspace cannot be read: {error.strerror}"
                raise CannotCollect(why, elsewhere=False) from error
            remarks += _left_out(artifact, findings.left_out)
            if not findings.files:
                remarks.append(
                    f"artifact {artifact['name']}: nothing in the workspace fits {artifact['path']}"
                )
            fresh = [f for f in findings.files if (artifact["name"], f.path) not in seen]
            seen.update((artifact["name"], found.path) for found in fresh)
            await self._store_all(identity, workspace, artifact, fresh)
        if len(remarks) > _REMARKS:
            remarks[_REMARKS:] = [f"and {len(remarks) - _REMARKS} more remarks about artifacts"]
        return remarks

    async def _store_all(
        self, identity: Identity, workspace: Path, artifact: Message, files: Sequence[Found]
    ) -> None:
        async def one(found: Found) -> None:
            async with self._files:
                await self._store(identity, workspace, artifact, found)

        await all_of(one(found) for found in files)

    async def _store(
        self, identity: Identity, workspace: Path, artifact: Message, found: Found
    ) -> None:
        try:
            file = await asyncio.to_thread(open_inside, workspace, found.path)
        except OSError as error:
            why = f"artifact {artifact['name']}: {found.path}: {error.strerror or error}"
            raise CannotCollect(why, elsewhere=False) from error
        try:
            await self._store_file(identity, artifact, found.path, file)
        finally:
            os.close(file)

    async def _store_archive(
        self, identity: Identity, workspace: Path, archive: Sequence[Message]
    ) -> list[str]:
        """Keeps the files of an artifact as one; returns remarks."""
        artifact = archive[0]
        where = f"artifact {artifact['name']}"
        patterns = [each["path"] for each in archive]
        stop = threading.Event()
        try:
            with tempfile.TemporaryFile(dir=self._scratch) as packed:
                count, left_out = await asyncio.to_thread(
                    pack, workspace, patterns, packed, stop,
                    dot_files=not artifact.get("no_dot_files"),
                )  # fmt: skip
                packed.flush()
                remarks = _left_out(artifact, left_out)
                if not count:
                    return [
                        *remarks,
                        f"{where}: nothing in the workspace fits {' '.join(patterns)}",
                    ]
                path = f"{artifact['name'].replace('/', '_')}.tar.gz"
                await self._store_file(identity, artifact, path, packed.fileno())
                return remarks
        except OSError as error:
            why = f"{where}: cannot be packed: {error.strerror or error}"
            raise CannotCollect(why, elsewhere=is_full(error)) from error
        finally:
            stop.set()

    async def _store_file(
        self, identity: Identity, artifact: Message, path: str, file: int
    ) -> None:
        """Keeps an open file under a path.

        Raises:
            CannotCollect: It cannot be kept.
        """
        where = f"artifact {artifact['name']}: {path}"
        try:
            size = os.fstat(file).st_size
            digest = await asyncio.to_thread(_digest, file)
            request = artifact_pb2.BeginUploadRequest(
                task_id=identity.task,
                lease_id=identity.lease,
                name=artifact["name"],
                path=path,
                size=size,
                sha256=digest,
                destination=artifact["destination"],
                expire_days=artifact["expire_days"],
            )
            async for attempt in trying():
                with attempt:
                    await self._send(request, file)
        except (CutError, ExpiredError) as error:
            raise CannotCollect(f"{where}: {error}", elsewhere=True) from error
        except RefusedError as error:
            raise CannotCollect(f"{where}: {error}", elsewhere=False) from error
        except OSError as error:
            raise CannotCollect(f"{where}: {error.strerror or error}", elsewhere=True) from error

    async def _send(self, request: artifact_pb2.BeginUploadRequest, file: int) -> None:
        """Goes through an upload once, from where it stands."""
        begun = await _asked(self._plane.begin_upload(request))
        if begun.stored:
            return
        parts = {part.number: part for part in begun.parts}
        count = max(1, -(-request.size // begun.part_size))
        missing = [number for number in range(1, count + 1) if number not in parts]
        renewals = 0
        while missing:
            answer = await _asked(
                self._plane.sign_parts(
                    artifact_pb2.SignPartsRequest(
                        artifact_id=begun.artifact_id, numbers=missing[:URLS_AT_ONCE]
                    )
                )
            )
            etags = await all_of(
                self._part(each, file, begun.part_size, request.size) for each in answer.urls
            )
            for each, etag in zip(answer.urls, etags, strict=True):
                if etag is not None:
                    parts[each.number] = artifact_pb2.Part(number=each.number, etag=etag)
            if None in etags:
                renewals += 1
                if renewals == RENEWALS:
                    raise ExpiredError("the store refuses every URL that the control plane gives")
                await asyncio.sleep(min(RENEWAL_PAUSE * 2**renewals, LONGEST_PAUSE))
            missing = [number for number in missing if number not in parts]
        await _asked(
            self._plane.complete_upload(
                artifact_pb2.CompleteUploadRequest(
                    artifact_id=begun.artifact_id, parts=[parts[n] for n in sorted(parts)]
                )
            )
        )

    async def _part(
        self, part: artifact_pb2.PartUrl, file: int, part_size: int, size: int
    ) -> str | None:
        """Puts one part; returns its etag, None where its URL does not count any more."""
        offset = (part.number - 1) * part_size
        async with self._parts:
            try:
                async for attempt in trying():
                    with attempt:
                        length = min(part_size, size - offset)
                        return await put(self._client, part.url, file, offset, length)
            except ExpiredError:
                return None
        return None


def _archives(wanted: Sequence[Message]) -> list[list[Message]]:
    """Returns those that are packed, those of one name together."""
    found: dict[str, list[Message]] = {}
    for artifact in wanted:
        if artifact.get("archive"):
            found.setdefault(artifact["name"], []).append(artifact)
    return list(found.values())


def _left_out(artifact: Message, paths: Sequence[str]) -> list[str]:
    named = f"artifact {artifact['name']}"
    return [f"{named}: {path} is no plain file and is left out" for path in paths]


async def _asked(call: Awaitable[Answer]) -> Answer:
    """Asks the control plane.

    Raises:
        CutError: It does not answer now.
        RefusedError: It refuses; its words say why.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        limit = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # a quota: later is no better
        if is_transient(error.code()) and not limit:
            raise CutError(_words(error)) from error
        raise RefusedError(_words(error)) from error


def _words(error: grpc.aio.AioRpcError) -> str:
    return error.details() or error.code().name


def _digest(file: int) -> str:
    found = hashlib.sha256()
    offset = 0
    while piece := os.pread(file, _READ, offset):
        found.update(piece)
        offset += len(piece)
    return found.hexdigest()
