"""Families of figures: which there are, and which are asked for.

A family is a module in `bench/figures`. Adding a file there is all it takes to add a figure.
"""

import pkgutil
from collections.abc import AsyncIterator, Sequence
from importlib import import_module
from typing import Protocol, cast

from bench import figures
from bench.figure import Figure
from bench.lab import Lab


class Family(Protocol):
    """What a module in `bench/figures` has."""

    FIGURES: Sequence[str]
    """The names of its figures."""

    @staticmethod
    def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
        """Yield the wanted ones of its figures; it may leave out others that cost extra time.

        Raises:
            Unmeasurable: something it needs is missing here.
        """


class UnknownFigureError(Exception):
    """A figure was asked for that does not exist."""

    def __init__(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        listed = "\n".join(f"  {name}" for name in known)
        super().__init__(f"There is no figure {', '.join(unknown)}. There are:\n{listed}")


def families() -> list[Family]:
    """Return every family, by the names of their files."""
    names = sorted(module.name for module in pkgutil.iter_modules(figures.__path__))
    return [cast(Family, import_module(f"{figures.__name__}.{name}")) for name in names]


def known_figures(all_families: Sequence[Family]) -> list[str]:
    """Return the names of all figures."""
    return [name for family in all_families for name in family.FIGURES]


def choose(
    all_families: Sequence[Family], names: Sequence[str]
) -> list[tuple[Family, frozenset[str]]]:
    """Return each family with the figures wanted of it; no names want all.

    Raises:
        UnknownFigureError: one of the names is no figure's.
    """
    known = known_figures(all_families)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownFigureError(unknown, known)
    wanted = set(names or known)
    chosen = [(family, frozenset(wanted.intersection(family.FIGURES))) for family in all_families]
    return [(family, of_it) for family, of_it in chosen if of_it]
