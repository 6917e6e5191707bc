"""What the options shared by all commands say."""

from dataclasses import dataclass

import click

from cli import contexts
from cli.contexts import Context
from cli.failure import CommandFailed

DEFAULT_SERVER = "127.0.0.1:50051"


@dataclass
class Settings:
    """Options that every command takes, before or after its name."""

    server: str = ""
    namespace: str = ""
    context: str = ""
    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    insecure: bool = False
    output: str = "table"
    debug: bool = False
    completed: bool = False
    """Whether the context has been asked for what nobody has said."""

    @property
    def encrypted(self) -> bool:
        """Whether the connection is to use TLS."""
        return self.tls or bool(self.tls_ca or self.tls_cert)


def current_settings() -> Settings:
    """Return the settings of the command that runs; what nobody has said, its context says.

    Raises:
        CommandFailed: the named context does not exist.
    """
    settings = click.get_current_context().ensure_object(Settings)
    if not settings.completed:
        settings.completed = True
        _complete(settings)
    return settings


def _complete(settings: Settings) -> None:
    known = contexts.load()
    if settings.server:  # what is remembered of this server counts, however it was named
        name = known.of_server(settings.server)
    else:
        name = settings.context or known.current
    if name and name not in known.named:
        raise CommandFailed(f"there is no context {name!r} — see: muster context list")
    context = known.named.get(name, Context(DEFAULT_SERVER))
    settings.server = settings.server or context.server
    settings.namespace = settings.namespace or context.namespace
    settings.tls = settings.tls or context.tls
    settings.tls_ca = settings.tls_ca or context.tls_ca
    settings.tls_cert = settings.tls_cert or context.tls_cert
    settings.tls_key = settings.tls_key or context.tls_key
    settings.insecure = settings.insecure or context.insecure
