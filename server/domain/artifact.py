"""Artifacts: files that tasks leave behind, and files that others hand in by a grant."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.checks import Checks, printable
from server.domain.errors import LimitReached
from server.domain.moment import DAY, Moment

NAME_LIMIT = 128
PATH_LIMIT = 1024
"""Bytes."""

DAYS_LIMIT = 3660
SIZE_LIMIT = 5 * 1024**4
"""Bytes of one file that object stores take."""

ABANDONED = DAY
"""After how long an upload that goes no further is given up."""

INCOMING = "incoming"
"""Where objects lie that producers put by themselves, until they are taken in."""

COLLECTING = DAY // 24
"""How long the file of a task may be on its way, beyond the time that the task itself may take."""

MAX_PARTS = 10_000
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(slots=True)
class Artifact:
    """An artifact's row; it is listed once `stored_at` is set."""

    key: int
    namespace: str
    public_id: str
    name: str
    path: str
    size: int
    sha256: str
    blob: str
    """Its name in the store."""
    part_size: int
    created_at: Moment
    task_id: str = ""
    task_name: str = ""
    run_id: str = ""
    attempt: int = 0
    lease_id: str = ""
    grant_id: str = ""
    """The grant it was handed in by, or empty."""
    handed_in_by: str = ""
    upload: str = ""
    """The store's name of the upload, while there is one."""
    stored_at: Moment | None = None
    expire_at: Moment | None = None
    due_at: Moment | None = None
    """When it is looked at next: given up, or deleted."""
    deleted: bool = False
    """Whether it is on its way out; then nobody sees it."""

    def is_of_job(self, job: str) -> bool:
        """Tell whether a job left it; all cells of a matrix have the name of their job."""
        return self.task_name == job or self.task_name.startswith(f"{job} (")

    @property
    def listed(self) -> bool:
        """Whether people see it."""
        return self.stored_at is not None and not self.deleted


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is about to be handed in."""

    name: str
    path: str
    size: int
    sha256: str
    destination: str = ""
    expire_days: int = 0

    def check(self, largest: int) -> None:
        """Check the fields.

        Raises:
            Invalid: one is malformed; each is named.
            LimitReached: it is larger than the server takes.
        """
        checks = Checks()
        checks.name("name", self.name, limit=NAME_LIMIT)
        if problem := path_problem(self.path):
            checks.fail("path", f"{printable(self.path)!r} {problem}")
        if self.destination and (problem := path_problem(self.destination)):
            checks.fail("destination", f"{printable(self.destination)!r} {problem}")
        checks.number("size", self.size, 0, SIZE_LIMIT)
        checks.number("expire_days", self.expire_days, 0, DAYS_LIMIT)
        if not SHA256.fullmatch(self.sha256):
            checks.fail("sha256", "must be 64 hexadecimal digits in lower case")
        checks.done()
        if largest and self.size > largest:
            raise LimitReached(
                f"{self.path} has {self.size} bytes; this server takes {largest} a file"
            )


def path_problem(path: str) -> str:
    """Return why a path is none of a file inside of a folder; nothing where it is one."""
    if not path or len(path.encode(errors="replace")) > PATH_LIMIT:
        return f"should have 1 to {PATH_LIMIT} bytes"
    if path.startswith("/") or path.endswith("/"):
        return "should be relative, and name a file"
    if any(ord(letter) < 32 or "\ud800" <= letter <= "\udfff" for letter in path):
        return "has letters that cannot be printed"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "has a part that is empty, '.' or '..'"
    return ""


def folder_name(namespace: str, place: str) -> str:
    """Return which folder of the store is a place of a namespace's; safe in every store."""
    return "/".join([namespace, *(_UNSAFE.sub("_", part) for part in place.split("/"))])


def blob_name(namespace: str, place: str, public_id: str, path: str) -> str:
    """Return where a file lies in the store: nobody else's, and safe in every store."""
    last = _UNSAFE.sub("_", path.rpartition("/")[2])[-100:]
    return "/".join([folder_name(namespace, place), public_id, last or "_"])


def incoming_folder(folder: str, grant_id: str) -> str:
    """Return where the producer with a grant puts objects by itself; `folder` is its place."""
    return f"{INCOMING}/{folder}/{grant_id}"


def incoming_name(artifact: Artifact) -> str:
    """Return where a producer with borrowed credentials puts a file that it has announced."""
    folder = artifact.blob.rsplit("/", 2)[0]
    return f"{incoming_folder(folder, artifact.grant_id)}/{artifact.public_id}"


def latest(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Return of each job's file the one that its last attempt left, by age."""
    found: dict[tuple[str, str, str], Artifact] = {}
    for each in artifacts:
        own = (each.task_id or each.public_id, each.name, each.path)
        if each.listed and (own not in found or found[own].attempt <= each.attempt):
            found[own] = each
    return sorted(found.values(), key=lambda each: each.key)
