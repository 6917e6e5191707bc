"""The catalog: versions of plugins that were published, and which of them a word means."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.domain.moment import Moment

SHA256 = "sha256:"
REFERENCE = re.compile(
    r"(?P<id>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)"
    r"(?:@(?P<version>sha256:[0-9a-f]{64}|[0-9]{1,9}(?:\.[0-9]{1,9}){0,2}(?:[-+][0-9A-Za-z.+-]{1,60})?))?",
    re.ASCII,
)
"""`id`, `id@1`, `id@1.2`, `id@1.2.0` or `id@sha256:HEX`."""

_VERSION = re.compile(
    r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})(?:-([0-9A-Za-z.-]+))?(?:\+.*)?", re.ASCII
)

Rank = tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]


@dataclass(slots=True)
class PublishedPlugin:
    """A version's row."""

    key: int
    namespace: str
    plugin_id: str
    version: str
    type: str
    protocol: str
    sha256: str
    size: int
    """Bytes of the package."""
    about: dict[str, object]
    """From its manifest: platforms, permissions, minimum_agent, description, parameters."""
    signature: str
    """The signature's file, or empty."""
    signed_by: str
    """The key's id, or empty."""
    published_at: Moment
    published_by: str
    yanked: str = ""
    """Why it was taken back, or empty."""
    bundled: bool = False
    """Whether it comes with Muster; such have no row."""

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.plugin_id}@{self.version}"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a task, or a person, asks for."""

    plugin_id: str
    version: str = ""
    """The whole or a beginning of one, `sha256:HEX`, or empty for the latest."""

    @staticmethod
    def parse(text: str) -> "Reference | None":
        """Return what a text asks for, None when it is no reference."""
        found = REFERENCE.fullmatch(text)
        return Reference(found["id"], found["version"] or "") if found else None


def rank(version: str) -> Rank:
    """Return a key that sorts versions as SemVer does (semver.org, 11)."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return (-1, 0, 0, 0, ())
    major, minor, patch, before = found.groups()
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in (before or "").split(".")
        if part
    )
    return (int(major), int(minor), int(patch), 0 if before else 1, parts)


def pick(wanted: Reference, known: Iterable[PublishedPlugin]) -> PublishedPlugin | None:
    """Return which of a plugin's versions is meant.

    A digest means that package even when it was taken back. A whole version means itself; what is
    less means the newest of those that begin so and are no pre-releases.
    """
    own = [each for each in known if each.plugin_id == wanted.plugin_id]
    if wanted.version.startswith(SHA256):
        sha256 = wanted.version.removeprefix(SHA256)
        return next((each for each in own if each.sha256 == sha256), None)
    given = [each for each in own if not each.yanked]
    if exact := [each for each in given if each.version == wanted.version]:
        return min(exact, key=lambda each: each.bundled)  # what was published for it goes first
    start = f"{wanted.version}." if wanted.version else ""
    fitting = [
        each for each in given if each.version.startswith(start) and rank(each.version)[3] == 1
    ]
    return max(fitting, key=lambda each: (rank(each.version), not each.bundled), default=None)


def why_none(wanted: Reference, text: str, known: Sequence[PublishedPlugin]) -> str:
    """Return why a reference means nothing, and what to do."""
    own = sorted(
        (each for each in known if each.plugin_id == wanted.plugin_id),
        key=lambda each: rank(each.version),
    )
    taken_back = [each for each in own if each.yanked and each.version == wanted.version]
    if taken_back:
        return (
            f"plugin {text} was taken back: {taken_back[0].yanked}; its digest still means it: "
            f"{wanted.plugin_id}@{SHA256}{taken_back[0].sha256}"
        )
    if own:
        there = ", ".join(each.version for each in own[-5:])
        return f"there is no plugin {text}; there are the versions {there}"
    return f"there is no plugin {text}; publish it: muster plugin publish FILE"
