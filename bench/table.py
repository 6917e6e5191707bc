"""`python -m bench.table < figures.jsonl`: what `make bench` printed, as a table for the docs."""

import json
import sys
from collections.abc import Iterable
from typing import Any

HEAD = "| figure | value | unit | n | rounds |\n|---|---|---|---|---|"


def table(lines: Iterable[str]) -> str:
    """Return the figures as a table in Markdown, by name."""
    figures = sorted((json.loads(line) for line in lines if line.strip()), key=lambda f: f["name"])
    return "\n".join([HEAD, *map(_row, figures)])


def _row(figure: dict[str, Any]) -> str:
    value, n = _number(figure["value"]), _number(figure["n"])
    rounds = ", ".join(map(_number, figure["settings"].get("rounds", [])))
    return f"| `{figure['name']}` | {value} | {figure['unit']} | {n} | {rounds} |"


def _number(value: float) -> str:
    return f"{value:,.10g}"


if __name__ == "__main__":
    sys.stdout.write(table(sys.stdin) + "\n")
