"""Log lines on the terminal: as they are, or behind the name of their task."""

import time
from collections.abc import Iterable
from itertools import cycle, groupby

import click

from cli.output import painted
from generated.stream.v1.stream_pb2 import LogChunk

COLOURS = cycle(("cyan", "magenta", "yellow", "green", "blue", "bright_red"))


def print_lines(lines: Iterable[LogChunk], *, timestamps: bool = False) -> None:
    """Print lines where the task printed them: standard output or standard error."""
    for stream, group in groupby(lines, key=lambda line: line.stream):
        if timestamps:
            text = b"".join(_stamp(line) + _exact(line) + b"\n" for line in group)
        else:
            text = b"".join(_exact(line) + (b"" if line.continued else b"\n") for line in group)
        click.echo(text, nl=False, err=stream == "stderr")


class PrefixedPrinter:
    """Prints a task's lines behind its name, all on standard output."""

    def __init__(self, name: str, width: int) -> None:
        self.prefix = painted(f"{name:<{width}} | ", next(COLOURS))

    def print_lines(self, lines: Iterable[LogChunk]) -> None:
        """Print lines, each behind the name."""
        for line in lines:
            click.echo(f"{self.prefix}{line.content}")

    def print_remark(self, text: str) -> None:
        """Print something about the task rather than from it."""
        click.echo(f"{self.prefix}{painted(text, dim=True)}")


def remark(text: str) -> None:
    """Tell on standard error something about the work rather than from it."""
    click.echo(f"muster: {text}", err=True)


def _stamp(line: LogChunk) -> bytes:
    try:
        local = time.localtime(line.timestamp // 1000)
    except (OverflowError, ValueError, OSError):
        return b"- "
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", local)
    zone = time.strftime("%z", local)
    return f"{moment}.{line.timestamp % 1000:03}{zone} ".encode()


def _exact(line: LogChunk) -> bytes:
    return line.raw or line.content.encode()
