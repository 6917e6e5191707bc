"""Bringing artifacts to this machine."""

import hashlib
import ssl
from collections.abc import Iterable
from pathlib import Path

import httpx2
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from cli.failure import CommandFailed
from cli.settings import current_settings

PIECE = 1024 * 1024
SILENCE_SECONDS = 60.0


class _Cut(Exception):  # noqa: N818 (it is tried again)
    pass


def download(files: Iterable[tuple[str, str, str, int]], folder: Path) -> list[Path]:
    """Bring files into a folder, each with its path, URL, digest and size; return where they are.

    Raises:
        CommandFailed: one cannot be had, has other bytes, or would lie outside of the folder.
    """
    found = []
    with _client() as client:
        for path, url, sha256, size in files:
            target = _inside(folder, path)
            try:
                _bring(client, url, sha256, size, target)
            except OSError as error:
                raise CommandFailed(f"{target}: {error.strerror or error}") from None
            except (_Cut, httpx2.HTTPError) as error:
                raise CommandFailed(f"{path}: {error or type(error).__name__}") from None
            found.append(target)
    return found


def _client() -> httpx2.Client:
    ca = current_settings().tls_ca
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    return httpx2.Client(timeout=SILENCE_SECONDS, verify=context)


def _bring(client: httpx2.Client, url: str, sha256: str, size: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    _fetch(client, url, size, partial)
    with partial.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            partial.unlink()
            raise CommandFailed(f"{target}: the store gives other bytes than were stored")
    partial.replace(target)


@retry(
    retry=retry_if_exception_type((_Cut, httpx2.TransportError)),
    stop=stop_after_attempt(5),
    wait=wait_exponential(0.2, max=5),
    reraise=True,
)
def _fetch(client: httpx2.Client, url: str, size: int, partial: Path) -> None:
    """Bring the bytes behind those that are here already."""
    there = partial.stat().st_size if partial.exists() else 0
    if there > size:
        partial.unlink()
        there = 0
    if there == size and partial.exists():
        return
    headers = {"accept-encoding": "identity", **({"range": f"bytes={there}-"} if there else {})}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code >= 500:
            raise _Cut(f"the store answers {answer.status_code}")
        answer.raise_for_status()
        with partial.open("ab" if answer.status_code == 206 else "wb") as file:
            for piece in answer.iter_raw(PIECE):
                file.write(piece)
                if file.tell() > size:
                    raise CommandFailed(f"the store gives more than the {size} bytes there are")
    if partial.stat().st_size < size:
        raise _Cut(f"only {partial.stat().st_size} of {size} bytes came")


def _inside(folder: Path, path: str) -> Path:
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise CommandFailed(f"{path!r} leads outside of {folder}")
    return folder.joinpath(*parts)
