"""The kinds of command this program is made of: shared options, examples, late imports."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

import click

from cli.settings import DEFAULT_SERVER, Settings

ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s:/@\[\]]+):([0-9]{1,5})")
NOT_TEXT = "is not text in UTF-8"


def is_address(text: str) -> bool:
    """Return whether a text names a host and a port."""
    found = ADDRESS.fullmatch(text)
    return found is not None and 0 < int(found[1]) < 65536


def _is_text(value: object) -> bool:
    """Return whether all text in an option's value can be sent; paths may be any bytes."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_text, value))
    return not isinstance(value, str) or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _remember(ctx: click.Context, option: click.Parameter, value: object) -> None:
    """Keep a shared option's value; an option that was not given keeps what is there."""
    if not _is_text(value):
        raise click.BadParameter(NOT_TEXT, ctx, option)
    if option.name == "server" and value is not None and not is_address(str(value)):
        raise click.BadParameter(
            f"{value!r} is not HOST:PORT, such as {DEFAULT_SERVER}", ctx, option
        )
    if value is not None and option.name is not None:
        setattr(ctx.ensure_object(Settings), option.name, value)


class SharedOption(click.Option):
    """An option of every command, kept in the settings instead of given to the function."""

    def __init__(
        self,
        *names: str,
        envvar: str | None,
        text: str,
        metavar: str | None = None,
        choices: Sequence[str] = (),
        is_flag: bool = False,
    ) -> None:
        super().__init__(
            names,
            envvar=envvar,
            show_envvar=True,
            help=text,
            metavar=metavar,
            type=click.Choice(choices) if choices else bool if is_flag else str,
            is_flag=is_flag,
            flag_value=True if is_flag else None,
            default=None,
            expose_value=False,
            callback=_remember,
        )


def shared_options(*, from_environment: bool) -> list[click.Parameter]:
    """Return the options of every command; only the root reads the environment.

    A subcommand that read it too would let a variable win over an option given to the root.
    """

    def variable(name: str) -> str | None:
        return f"MUSTER_{name}" if from_environment else None

    return [
        SharedOption(
            "-o",
            "--output",
            envvar=None,
            choices=("table", "json", "yaml"),
            text="How to print results (default: table).",
        ),
        SharedOption(
            "--server",
            envvar=variable("SERVER"),
            metavar="HOST:PORT",
            text=f"Where the control plane is (default: the context's, or {DEFAULT_SERVER}).",
        ),
        SharedOption(
            "--context",
            envvar=variable("CONTEXT"),
            metavar="NAME",
            text="Which of the servers in `muster context list`.",
        ),
        SharedOption(
            "--tls",
            envvar=variable("TLS"),
            is_flag=True,
            text="Encrypt; the server's certificate is from an authority the system trusts.",
        ),
        SharedOption(
            "--tls-ca",
            envvar=variable("TLS_CA"),
            metavar="FILE",
            text="Encrypt; the server's certificate is from the authority in this file.",
        ),
        SharedOption(
            "--tls-cert",
            envvar=variable("TLS_CERT"),
            metavar="FILE",
            text="Your own certificate, for a server that asks for one.",
        ),
        SharedOption(
            "--tls-key",
            envvar=variable("TLS_KEY"),
            metavar="FILE",
            text="The key of --tls-cert.",
        ),
        SharedOption(
            "--insecure",
            envvar=None,
            is_flag=True,
            text="Send tokens to another machine in plain text.",
        ),
        SharedOption(
            "--namespace",
            envvar=variable("NAMESPACE"),
            metavar="NAME",
            text="Namespace to work in.",
        ),
        SharedOption(
            "--debug",
            envvar=variable("DEBUG"),
            is_flag=True,
            text="Show the traceback of an unexpected error.",
        ),
    ]


class Command(click.Command):
    """A command with the shared options; its epilog holds examples, one a line."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own options, then those of every command."""
        return [*super().get_params(ctx), *shared_options(from_environment=False)]

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; bytes that are no text are wrong usage."""
        for param in self.params:
            if not _is_text(ctx.params.get(param.name or "")):
                raise click.BadParameter(NOT_TEXT, ctx, param)
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are."""
        with formatter.section("Examples"):
            for line in (self.epilog or "").strip().splitlines():
                formatter.write(f"  {line.strip()}\n")


class Group(click.Group):
    """The commands of one noun."""

    command_class = Command

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the group's own options, then those of every command."""
        return [*super().get_params(ctx), *shared_options(from_environment=False)]


class OutputClosed(Exception):  # noqa: N818 - not an error of ours
    """Nobody reads what the command prints."""


class Late(NamedTuple):
    """A command that is imported when it is used."""

    module: str
    help: str
    name: str = "command"


class LateGroup(click.Group):
    """Commands whose modules are imported only when used, so that help comes at once."""

    late: Mapping[str, Late] = {}

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the program's own options, then those of every command."""
        return [*super().get_params(ctx), *shared_options(from_environment=True)]

    def invoke(self, ctx: click.Context) -> object:
        """Run the command and return what it gives.

        Raises:
            OutputClosed: in place of BrokenPipeError, which click would end the program for.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OutputClosed from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(self.late)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported now."""
        if cmd_name not in self.late:
            return None
        late = self.late[cmd_name]
        command: click.Command = getattr(import_module(late.module), late.name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is meant, its name and the rest; suggest one for a misspelt."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(args[0], possibilities=self.late, ctx=ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, late.help) for name, late in self.late.items()])
