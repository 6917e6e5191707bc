"""`muster context`: the servers one works with."""

import click

from cli import contexts
from cli.exit_codes import Exit
from cli.failure import CommandFailed
from cli.framework import Group
from cli.output import print_line, print_table
from cli.settings import current_settings


@click.group("context", cls=Group)
def command() -> None:
    """Choose between the servers you work with."""


@command.command("list", epilog="muster context list")
def list_contexts() -> None:
    """List the servers that are remembered."""
    known = contexts.load()
    if current_settings().output != "table":
        for name, each in sorted(known.named.items()):
            data = {"name": name, "server": each.server, "namespace": each.namespace}
            print_line({**data, "current": name == known.current}, "")
        return
    rows = [
        (name, each.server, each.namespace or "default", "*" if name == known.current else "")
        for name, each in sorted(known.named.items())
    ]
    print_table(("CONTEXT", "SERVER", "NAMESPACE", "CURRENT"), rows)


@command.command("use", epilog="muster context use build-host")
@click.argument("name")
def use(name: str) -> None:
    """Work with a server from now on."""
    known = contexts.load()
    _find(known, name)
    known.current = name
    contexts.save(known)
    click.echo(f"From now on: {name} ({known.named[name].server}).")


@command.command("delete", epilog="muster context delete build-host")
@click.argument("name")
def delete(name: str) -> None:
    """Forget a server; its token is kept until `muster logout`."""
    known = contexts.load()
    _find(known, name)
    del known.named[name]
    if known.current == name:
        known.current = ""
    contexts.save(known)
    click.echo(f"{name} is forgotten.")


def _find(known: contexts.Contexts, name: str) -> None:
    if name not in known.named:
        text = f"there is no context {name!r} — see what there is with: muster context list"
        raise CommandFailed(text, Exit.NOT_FOUND)
