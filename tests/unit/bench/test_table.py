"""Figures as a table for the docs."""

from bench.figure import Figure
from bench.table import table


def test_figures_become_rows_in_the_order_of_their_names():
    figures = [
        Figure("speed", 12345.6, "tasks/s", 20_000, {"rounds": [12000.0, 12345.6]}),
        Figure("age", 2, "s", 1),
    ]
    assert table([f"{figure.line()}\n" for figure in figures]).splitlines()[2:] == [
        "| `age` | 2 | s | 1 |  |",
        "| `speed` | 12,346 | tasks/s | 20,000 | 12,000, 12,345.6 |",
    ]
