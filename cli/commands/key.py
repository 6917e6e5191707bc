"""`muster key`: keys that sign tasks."""

from pathlib import Path

import click

from cli.framework import Group
from cli.task_signing import make_key


@click.group("key", cls=Group)
def command() -> None:
    """Make keys that sign tasks, for agents that run nothing else."""


@command.command("create", epilog="muster key create release.key >> trusted-keys")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def create(file: Path) -> None:
    """Make a key, and print the line by which agents trust it (--trusted-task-keys)."""
    line = make_key(file)
    click.echo(f"The key is in {file}; keep it to yourself. Agents trust this line:", err=True)
    click.echo(line)
