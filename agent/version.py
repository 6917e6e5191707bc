"""The agent program's version."""

from importlib import metadata


def _installed() -> str:
    try:
        return metadata.version("muster")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "0.0.0"


VERSION = _installed()
