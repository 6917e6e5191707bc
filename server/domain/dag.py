"""Who waits for whom."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter


def find_cycle(needs: Mapping[str, Sequence[str]]) -> list[str] | None:
    """Return the names along one cycle, the first also last, or None when there is none."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return None


def in_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names so that each comes after those it waits for.

    Raises:
        graphlib.CycleError: some wait for each other.
    """
    return list(TopologicalSorter(needs).static_order())
