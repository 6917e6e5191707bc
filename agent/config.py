"""Settings: flags over environment over defaults, each with its meaning and unit."""

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import platformdirs

from agent.allowing import AllowLists
from agent.confining import CACHE
from agent.plugin_cache import Trust
from agent.trusting import TrustedKeys
from servicelog.levels import Level, parse_levels
from servicelog.setup import Format, LogFile

ENVIRONMENT_PREFIX = "MUSTER_AGENT"
"""What the environment variables of all options begin with."""


@dataclass(frozen=True)
class Tls:
    """How the connection to the control plane is encrypted."""

    ca: Path | None
    """The authority that the server's certificate is from; None takes those of the system."""

    certificate: Path | None = None
    """The agent's own certificate, where the server asks for one."""

    key: Path | None = None
    """The key of that."""


@dataclass(frozen=True)
class Settings:
    """What the agent is told at its start."""

    server: str
    """The control plane, HOST:PORT."""

    data_dir: Path
    """Where the agent's id, the spool and the supervisor's socket live."""

    slots: int
    """Tasks it runs at most at a time."""

    labels: dict[str, str]
    """What selectors can ask for, from the flag."""

    labels_file: Path | None
    """Further labels, one `key=value` a line; read again on SIGHUP."""

    name: str
    """The agent's id; empty keeps one of its own making in the data directory."""

    drain_limit: timedelta
    """How long SIGTERM waits for tasks before it stops them."""

    namespace: str
    """Sent with every call, where it is set."""

    enrolment: str
    """The token to enrol with; empty for an agent that is enrolled, or where nobody asks."""

    tls: Tls | None
    """How the connection is encrypted; None is not at all."""

    allowed: AllowLists
    """What tasks may do on this host."""

    trusted: TrustedKeys
    """Whose tasks it runs."""

    confinement: dict[str, Any]
    """How tasks are confined; see `agent.confining`."""

    plugin_trust: Trust
    """Whose plugins run on this host."""

    plugin_cache_bytes: int
    """How much of unpacked plugins is kept at most, but for those that run."""

    workspace_quota: int
    """Bytes of disk that the workspace of each task may take; 0 is no limit."""

    workspace_keep: timedelta
    """How long workspaces are kept that tasks leave on request."""

    workspace_spare_disk: int
    """Free bytes below which the oldest of them go first."""

    insecure: bool
    """Whether tokens may go to another machine in plain text."""

    @property
    def stays_here(self) -> bool:
        """Whether the control plane is on this machine."""
        return self.server.startswith(("127.", "localhost:", "[::1]:"))

    metrics_dir: Path | None
    """Where files with further measurements of the host lie."""

    log_level: str
    """Least severe level that is logged."""

    log_levels: Mapping[str, Level]
    """Levels of modules that are not to have `log_level`."""

    log_format: Format
    """How records are written to standard error."""

    log_file: LogFile | None
    """Where records are written too, as JSON."""

    def all_labels(self) -> dict[str, str]:
        """Returns the labels as they are now: the file's, and over them the flag's.

        Raises:
            click.ClickException: The file cannot be read or holds something else.
        """
        if self.labels_file is None:
            return dict(self.labels)
        try:
            lines = self.labels_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise click.ClickException(f"labels file: {error}") from error
        kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        return {**parse_labels(",".join(kept)), **self.labels}

    def told_to_tasks(self) -> dict[str, str]:
        """Returns variables of tasks: where the control plane is, and where caches are kept."""
        told = {"MUSTER_SERVER": self.server, "MUSTER_CACHE_DIR": str(self.data_dir / CACHE)}
        if self.tls is not None and self.tls.ca is not None:
            told["MUSTER_TLS_CA"] = str(self.tls.ca.resolve())
        elif self.tls is not None:
            told["MUSTER_TLS"] = "1"
        return told


def parse_labels(text: str) -> dict[str, str]:
    """Returns the labels in `key=value,key=value`.

    Raises:
        click.BadParameter: A part has no key or no equals sign.
    """
    labels: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        if not key.strip() or not equals:
            raise click.BadParameter(f"{part!r} is not key=value")
        labels[key.strip()] = value.strip()
    return labels


def misspelt(environment: Iterable[str], options: Iterable[str]) -> list[str]:
    """Returns a sentence for each variable that looks like one of an option and is none."""
    known = [f"{ENVIRONMENT_PREFIX}_{option.upper()}" for option in options]
    found = []
    for name in sorted(set(environment) - set(known)):
        if name.startswith(f"{ENVIRONMENT_PREFIX}_"):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            found.append(f"there is no setting {name}{hint}")
    return found


def default_slots() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) or 1


def default_data_dir() -> Path:
    """Returns the user's data directory for the agent."""
    return Path(platformdirs.user_data_dir("muster-agent"))


def check_levels(_: click.Context, __: click.Parameter, value: str) -> dict[str, Level]:
    """Returns the levels in MODULE=LEVEL,….

    Raises:
        click.BadParameter: It is something else.
    """
    try:
        return parse_levels(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def check_server(_: click.Context, __: click.Parameter, value: str) -> str:
    """Returns the address unchanged when it is HOST:PORT.

    Raises:
        click.BadParameter: It is something else.
    """
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise click.BadParameter(f"{value!r} is not HOST:PORT")
    return value
