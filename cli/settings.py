"""What the options shared by all commands say."""

from dataclasses import dataclass

import click

DEFAULT_SERVER = "127.0.0.1:50051"


@dataclass
class Settings:
    """Options that every command takes, before or after its name."""

    server: str = DEFAULT_SERVER
    namespace: str = ""
    output: str = "table"
    debug: bool = False


def current_settings() -> Settings:
    """Return the settings of the command that runs."""
    return click.get_current_context().ensure_object(Settings)
