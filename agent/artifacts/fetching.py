"""Brings files of earlier jobs to this host, before a task starts."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import httpx2

from agent.artifacts.transfer import (
    CutError,
    ExpiredError,
    RefusedError,
    all_of,
    bytes_of,
    get,
    trying,
)
from agent.preparing import CannotPrepare
from generated.agent.v1 import agent_pb2

FILES_AT_ONCE = 4


class Fetcher:
    """See `agent.preparing.Inputs`."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._files = asyncio.Semaphore(FILES_AT_ONCE)

    async def fetch(self, inputs: Sequence[agent_pb2.ArtifactInput], folder: Path) -> None:
        """See Inputs."""

        async def one(wanted: agent_pb2.ArtifactInput) -> None:
            async with self._files:
                await self._fetch(wanted, folder)

        await all_of(one(wanted) for wanted in inputs)

    async def _fetch(self, wanted: agent_pb2.ArtifactInput, folder: Path) -> None:
        target = _inside(folder, wanted.path)
        partial = target.with_name(f".{wanted.artifact_id}.part")
        try:
            await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
            async for attempt in trying(lambda: bytes_of(partial)):
                with attempt:
                    await get(self._client, wanted.download_url, partial, wanted.size)
            if not wanted.size:
                partial.touch()
            if await asyncio.to_thread(_digest, partial) != wanted.sha256:
                raise RefusedError("the store gives other bytes than were stored")
            os.link(partial, target)  # where two files have one path, the second is refused
        except (CutError, ExpiredError) as error:
            raise CannotPrepare(f"{wanted.path}: {error}", elsewhere=True) from error
        except RefusedError as error:
            raise CannotPrepare(f"{wanted.path}: {error}", elsewhere=False) from error
        except FileExistsError as error:
            why = f"two files of earlier jobs would both lie at {wanted.path}"
            raise CannotPrepare(why, elsewhere=False) from error
        except OSError as error:
            raise CannotPrepare(
                f"{wanted.path}: {error.strerror or error}", elsewhere=True
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def _inside(folder: Path, path: str) -> Path:
    """Returns where a file is to lie.

    Raises:
        CannotPrepare: It would lie outside of the folder.
    """
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise CannotPrepare(f"{path!r} leads outside of the workspace", elsewhere=False)
    return folder.joinpath(*parts)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
