"""Reading the settings from the command line, the environment and a TOML file."""

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import InitSettingsSource, PydanticBaseSettingsSource

from server.settings import PREFIX, Settings
from servicelog.levels import Level

__all__ = ["Settings", "load", "warnings_about"]

# Variables of the agent, the command line and of running tasks: they may be set beside a server.
FOREIGN = frozenset(
    PREFIX + name
    for name in (
        "ATTEMPT", "CONFIG", "CONFIG_DIR", "CONTEXT", "DEBUG", "KEYRING", "NAMESPACE", "PIPELINE",
        "RUN", "SERVER", "STAGE", "TASK", "TLS", "TLS_CA", "TOKEN", "TOKEN_FILE", "WORKSPACE",
    )
)  # fmt: skip
COMMANDS = ("init", "token", "certificate", "agent-certificate", "db")
"""What the first word may be."""

FOREIGN_PREFIXES = tuple(PREFIX + name for name in ("AGENT_", "PIPELINE_", "RUN_", "TASK_"))


def load(argv: Sequence[str]) -> Settings:
    """Return the settings, or end the program: 0 after `--help`, 2 where something is wrong."""
    return parse(argv)[0]


def parse(argv: Sequence[str]) -> tuple[Settings, list[str]]:
    """Return the settings and the words of a subcommand, or end the program as `load` does."""
    try:
        outcome = _command().main(list(argv), prog_name="muster-server", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(2)
    if isinstance(outcome, tuple):
        settings, words = outcome
        return settings, list(words)
    sys.exit(outcome or 0)


def warnings_about(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return what an operator should be told about these settings at the start."""
    unknown = [
        f"{name} is not a setting of this server; see --help"
        for name in sorted(environ)
        if _looks_misspelt(name)
    ]
    return [*unknown, *_exposed(settings)]


def _exposed(settings: Settings) -> list[str]:
    addresses = [
        address
        for address in (settings.grpc_listen, settings.http_listen)
        if not address.is_loopback
    ]
    if settings.auth == "on" and settings.tls_cert is not None:
        return []
    if settings.auth == "on":
        return [
            f"Listening on {address} in plain text: who listens in can read tokens"
            for address in addresses
        ]
    everybody = [
        f"Listening on {address}: EVERYBODY who can reach it can run commands on your agents"
        for address in addresses
    ]
    return everybody or ["auth is off: EVERYBODY on this machine can run commands on your agents"]


def _looks_misspelt(variable: str) -> bool:
    return (
        variable.startswith(PREFIX)
        and variable not in FOREIGN
        and not variable.startswith(FOREIGN_PREFIXES)
        and variable.removeprefix(PREFIX).lower() not in Settings.model_fields
    )


def _command() -> click.Command:
    """Build the command from the settings, so that neither can forget the other."""
    config = click.Option(
        ["--config"],
        envvar=f"{PREFIX}CONFIG",
        show_envvar=True,
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="TOML file with any of these settings, written with underscores.",
    )
    options = [_option(name, field) for name, field in Settings.model_fields.items()]
    return click.Command(
        "muster-server",
        params=[config, *options, click.Argument(["words"], nargs=-1, metavar="[COMMAND]...")],
        callback=_settings,
        help=(
            "Run the Muster server. Flags beat environment variables, which beat the file.\n\n"
            "db check tells whether the database is sound; db backup FILE copies it. "
            "Both work while a server runs.\n\n"
            "init [HOST]... makes a secure set-up in --data-dir: an authority, a certificate, "
            "tokens, and a file for --config. certificate [HOST]... renews the certificate; "
            "agent-certificate NAMESPACE/ID makes one for an agent.\n\n"
            "token NAME makes an administrator's token without asking anybody; a server on an "
            "SQLite file must be stopped for that."
        ),
        epilog="Durations are seconds (30, 2.5) or ISO 8601 (PT30S).",
        context_settings={"max_content_width": 100},
    )


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = "--" + name.replace("_", "-")
    default = _default_text(field)
    env = f"[env: {PREFIX}{name.upper()}]"
    help_text = f"{field.description} {env}" + (f" [default: {default}]" if default else "")
    if field.annotation is bool:
        spellings, metavar = f"{flag}/--no{flag[1:]}", None
    else:
        spellings, metavar = flag, _metavar(field)
    return click.Option(
        [spellings],
        default=None,
        metavar=metavar,
        help=help_text,
    )


def _metavar(field: FieldInfo) -> str:
    kinds: dict[object, str] = {
        timedelta: "DURATION",
        int: "NUMBER",
        float: "NUMBER",
        Path: "DIR",
        str: "TEXT",
    }
    kinds |= {Path | None: "FILE", dict[str, Level]: "MODULE=LEVEL,…"}
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["metavar"])
    if field.annotation in kinds:
        return kinds[field.annotation]
    if choices := getattr(field.annotation, "__args__", None):
        return "|".join(choices)
    return "HOST:PORT"


def _default_text(field: FieldInfo) -> str:
    if field.annotation is Path:
        return "the user's data folder"
    if field.default_factory is not None:
        return ""  # its description tells the default
    if isinstance(field.default, timedelta):
        return f"{field.default.total_seconds():g}"
    if field.default is None:
        return "none"
    return "no" if field.default is False else str(field.default)


def _settings(
    config: Path | None,
    words: Sequence[str],
    **flags: Any,  # noqa: ANN401 (text and booleans, which the model checks)
) -> tuple[Settings, Sequence[str]]:
    """Merge every source and check the result.

    Raises:
        click.UsageError: a value is wrong; one line names each.
    """
    if words and words[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise click.UsageError(f"there is no command {words[0]!r}; there are {known}")
    given = {name: value for name, value in flags.items() if value is not None}
    in_file = _read(config) if config else {}
    try:
        return _model_with(in_file)(**given), words
    except ValidationError as error:
        lines = [
            _line(detail, given, config, in_file)
            for detail in error.errors()
            if detail["type"] != "default_factory_not_called"  # follows from another line
        ]
        raise BadSettings("\n".join(lines)) from None


class BadSettings(click.ClickException):
    """Settings that cannot be used; the message has a line for each."""

    exit_code = 2

    def show(self, file: Any = None) -> None:  # noqa: ANN401 (click's own signature)
        """Write the lines to stderr."""
        click.echo(self.message, file=file, err=file is None)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSettings(f"{file}: {error}") from None


def _model_with(in_file: dict[str, Any]) -> type[Settings]:
    """Return the settings' model with the file's values below flags and environment."""

    class SettingsFromEverywhere(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[Any],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, in_file)

    return SettingsFromEverywhere


def _line(
    detail: Mapping[str, Any],
    given: Mapping[str, object],
    config: Path | None,
    in_file: Mapping[str, Any],
) -> str:
    """Return one line: where the bad value came from, and what would be right."""
    name = str(detail["loc"][0])
    variable = PREFIX + name.upper()
    if name in given:
        source = "--" + name.replace("_", "-")
    elif os.environ.get(variable):
        source = variable
    elif name in in_file:
        source = f"{config}: {name}"
    else:
        source = name
    if detail["type"] == "extra_forbidden":
        return f"{source}: there is no such setting"
    if detail["type"].startswith("time_delta"):
        return f"{source}: should be a number of seconds or an ISO 8601 duration"
    return f"{source}: {detail['msg'].removeprefix('Value error, ')}"
