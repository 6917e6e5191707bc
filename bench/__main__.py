"""`python -m bench [FIGURE,…]`: measure figures; JSON lines on stdout, progress on stderr."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")


import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from bench.family import Family, UnknownFigureError, choose, families
from bench.lab import ROUNDS, Lab, Unmeasurable

Chosen = Sequence[tuple[Family, frozenset[str]]]


@click.command()
@click.argument("figures", default="")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    help="Measure so much less of everything, for a quick look.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=ROUNDS,
    help="Measure each figure so often and take the median.",
)
@click.option(
    "--profiles",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True, resolve_path=True),
    help="Write flame graphs of servers and agents to this folder; the figures suffer.",
)
def main(figures: str, scale: float, rounds: int, profiles: Path | None) -> None:
    """Measure FIGURES (names with commas between them; all without a name)."""
    names = [name for name in figures.split(",") if name]
    try:
        chosen = choose(families(), names)
    except UnknownFigureError as error:
        raise click.ClickException(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="mb-", ignore_cleanup_errors=True) as folder:
        asyncio.run(until_terminated(Lab(Path(folder), scale, rounds, profiles), chosen))


async def until_terminated(lab: Lab, chosen: Chosen) -> None:
    """Measure, and end every program that was started also when SIGTERM comes."""
    async with asyncio.TaskGroup() as group:
        measuring = group.create_task(measure_all(lab, chosen))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)


async def measure_all(lab: Lab, chosen: Chosen) -> None:
    """Measure family after family and write each figure as soon as it is known."""
    for family, wanted in chosen:
        lab.say(f"measuring {', '.join(name for name in family.FIGURES if name in wanted)}")
        began = time.monotonic()
        try:
            async for figure in family.measure(lab, wanted):
                if figure.name in wanted:
                    sys.stdout.write(f"{figure.line()}\n")
                    sys.stdout.flush()
        except Unmeasurable as reason:
            lab.say(f"left out: {reason}")
        lab.say(f"  took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
