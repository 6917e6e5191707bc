"""`muster version`: which version this is."""

import tomllib
from importlib import metadata
from pathlib import Path

import click

from cli.framework import Command


def program_version() -> str:
    """Return the version that is installed, or that of the source tree it runs from."""
    try:
        return metadata.version("muster")
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return f"{tomllib.loads(project.read_text())['project']['version']}+source"


@click.command("version", cls=Command, epilog="muster version")
def command() -> None:
    """Show the version of this program."""
    click.echo(f"muster {program_version()}")
