"""Paths of a plugin's parameters, which lead nowhere but into the workspace."""

from pathlib import Path

from plugins.parameters import Parameters, fail


def inside(given: Parameters, name: str) -> Path:
    """Return a path in the workspace; one that leads outside ends the program with a word."""
    text = given.text(name)
    here = Path.cwd().resolve()
    path = (here / text).resolve()
    if not path.is_relative_to(here):
        fail(f"{name}: {text!r} leads outside of the workspace")
    return path
