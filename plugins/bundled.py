"""The plugins that come with Muster: every agent has them, and nothing is fetched for them."""

from functools import cache
from pathlib import Path

from plugins.package.manifest import MANIFEST, Manifest, parse_manifest

_HERE = Path(__file__).resolve().parent


@cache
def _found() -> dict[str, tuple[Path, Manifest]]:
    found = {}
    for file in sorted(_HERE.glob(f"*/{MANIFEST}")):
        manifest = parse_manifest(file.read_bytes())
        found[manifest.id] = (file.parent, manifest)
    return found


def manifests() -> dict[str, Manifest]:
    """Return what each says of itself, by id."""
    return {id_: manifest for id_, (_, manifest) in _found().items()}


def folders() -> dict[str, Path]:
    """Return where each lies, by id."""
    return {id_: folder for id_, (folder, _) in _found().items()}
