"""What is wrong with a package, in words for people."""

from collections.abc import Iterable


class PackageRefused(Exception):  # noqa: N818 - reads as what it says
    """A manifest, archive or signature is not what it has to be; nothing was made of it.

    `violations` names each bad field, path or line with what is wrong; there is at least one.
    """

    def __init__(self, violations: Iterable[tuple[str, str]]) -> None:
        self.violations = list(violations)
        super().__init__("\n  ".join(f"{where}: {why}" for where, why in self.violations))


def refused(where: str, why: str) -> PackageRefused:
    """Return the refusal for one thing that is wrong."""
    return PackageRefused([(where, why)])
