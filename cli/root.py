"""The `muster` command and the nouns and verbs under it."""

import click

from cli.framework import Late, LateGroup

COMMANDS = {
    "exec": Late("cli.commands.exec", "Run a command on a fitting machine and follow it."),
    "task": Late("cli.commands.task", "Submit tasks, look at them, end them."),
    "pipeline": Late("cli.commands.pipeline", "Define pipelines and run them."),
    "run": Late("cli.commands.run", "Look at pipelines' runs."),
    "agent": Late("cli.commands.agent", "Look at the worker machines."),
    "events": Late("cli.commands.events", "Show what happened, and follow what happens."),
    "login": Late("cli.commands.login", "Keep a token for a server, and use that server.", "login"),
    "logout": Late("cli.commands.login", "Forget the token of a server.", "logout"),
    "whoami": Late("cli.commands.login", "Show who you are, and what you may do.", "whoami"),
    "context": Late("cli.commands.context", "Choose between the servers you work with."),
    "hook": Late("cli.commands.hook", "Let forges and programs call for pipelines."),
    "key": Late("cli.commands.key", "Make keys that sign tasks."),
    "secret": Late("cli.commands.secret", "Keep values that tasks get and nobody can read."),
    "schedule": Late("cli.commands.schedule", "Have pipelines started by the clock."),
    "artifact": Late("cli.commands.artifact", "Look at files that tasks left behind."),
    "plugin": Late("cli.commands.plugin", "Write, pack, check and publish plugins."),
    "audit": Late("cli.commands.audit", "Show who changed what."),
    "token": Late("cli.commands.token", "Make, list and revoke callers' tokens."),
    "up": Late("cli.commands.up", "Start a server and an agent on this machine."),
    "ping": Late("cli.commands.ping", "Check that the server answers."),
    "version": Late("cli.commands.version", "Show the version of this program."),
}


class Muster(LateGroup):
    """The program's commands."""

    late = COMMANDS


def _show_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from cli.commands.version import program_version  # late: reads package metadata

        click.echo(f"muster {program_version()}")
        ctx.exit()


@click.group(
    cls=Muster,
    name="muster",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def root() -> None:
    """Put machines to work.

    Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 server unreachable, 4 not found;
    `muster exec` passes on the exit code of its task. JSON and YAML output is the API's own
    JSON with the field names of the .proto files; it is stable.
    """
