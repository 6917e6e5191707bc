"""The cells of a matrix: every combination, but for those taken out, and with those put in."""

from collections.abc import Mapping
from itertools import product

from server.definition.record import Matrix

MOST_CELLS = 256


def cells_of(matrix: Matrix) -> list[dict[str, str]]:
    """Return a matrix's cells in the order of the file, the last name changing fastest.

    An `exclude` takes out every cell that it agrees with. An `include` that agrees with some cells
    in the names of the axes that it has, and has further names, adds those to them; any other is a
    cell of its own.
    """
    names = list(matrix.axes)
    cells = [dict(zip(names, values, strict=True)) for values in product(*matrix.axes.values())]
    if not names:
        cells = []
    cells = [cell for cell in cells if not any(_agrees(cell, out) for out in matrix.exclude)]
    for more in matrix.include:
        known = {name: value for name, value in more.items() if name in matrix.axes}
        fitting = [cell for cell in cells if known and _agrees(cell, known)]
        if fitting and len(known) < len(more):
            for cell in fitting:
                cell.update(more)
        elif not fitting:
            cells.append(dict(more))
    return cells


def _agrees(cell: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(cell.get(name) == value for name, value in other.items())
