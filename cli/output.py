"""Results on standard output: for people, or as JSON and YAML for programs."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from cli.settings import current_settings


def show(message: Message, for_people: Callable[[], None]) -> None:
    """Print a message in the wanted form; `for_people` prints it as text."""
    if not _shown_to_programs(as_data(message)):
        for_people()


def show_all(messages: Sequence[Message], for_people: Callable[[], None]) -> None:
    """Print a list of messages in the wanted form."""
    if not _shown_to_programs([as_data(message) for message in messages]):
        for_people()


def show_data(data: dict[str, Any], for_people: Callable[[], None]) -> None:
    """Print what no message of the API says in the wanted form."""
    if not _shown_to_programs(data):
        for_people()


def print_line(data: dict[str, Any], for_people: str) -> None:
    """Print one of many things as they come, on one line: text, JSON, or a document of YAML."""
    match current_settings().output:
        case "json":
            click.echo(json.dumps(data, ensure_ascii=False))
        case "yaml":
            click.echo(f"--- {json.dumps(data, ensure_ascii=False)}")  # JSON is YAML too
        case _:
            click.echo(for_people)


def as_data(message: Message) -> dict[str, Any]:
    """Return a message as JSON data with the names of the .proto file, empty fields included."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def colours_wanted() -> bool:
    """Return whether standard output is a terminal whose reader has not refused colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings: coloured on a terminal, plain and uncut anywhere else.

    The first column holds ids; it is never cut.
    """
    from rich.console import Console  # late: only tables need it
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        first = not table.columns
        table.add_column(heading, no_wrap=first, overflow="ignore" if first else "fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    coloured = colours_wanted()
    console = Console(
        file=sys.stdout,
        highlight=False,
        color_system="auto" if coloured else None,
        width=None if sys.stdout.isatty() else 10_000,
    )
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print the fields of one thing, one a line, without the empty ones."""
    filled = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in filled), default=0) + 2
    for name, value in filled:
        first, *rest = value.splitlines()
        click.echo(f"{name + ':':<{width}}{coloured_status(first)}")
        for line in rest:
            click.echo(f"{'':<{width}}{line}")


def painted(text: str, colour: str | None = None, *, dim: bool | None = None) -> str:
    """Return text in a colour where colours are wanted."""
    return click.style(text, fg=colour, dim=dim) if colours_wanted() else text


def coloured_status(text: str) -> str:
    """Return a status in its colour, and any other text as it is."""
    return painted(text, STYLES[text]) if text in STYLES else text


STYLES = {
    "SUCCESS": "green",
    "PARTIAL": "yellow",
    "FAILED": "red",
    "TIMEOUT": "red",
    "LOST": "red",
    "CANCELLED": "yellow",
    "SKIPPED": "yellow",
    "RUNNING": "cyan",
    "ONLINE": "green",
    "IDLE": "green",
    "BUSY": "cyan",
    "OFFLINE": "red",
}


def _shown_to_programs(data: object) -> bool:
    """Print data as JSON or YAML; return False when people want to read it."""
    match current_settings().output:
        case "json":
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        case "yaml":
            from ruamel.yaml import YAML  # late: slow to import

            yaml = YAML(typ="safe", pure=True)
            yaml.default_flow_style = False
            yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # untyped
            yaml.dump(data, sys.stdout)
        case _:
            return False
    return True
