"""Calls to the control plane."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import grpc
from grpc import aio

from cli import interrupt
from cli.credentials import token_for
from cli.errors import refusal
from cli.failure import CommandFailed
from cli.settings import Settings, current_settings
from generated.agent.v1.agent_pb2_grpc import AgentServiceStub
from generated.artifact.v1.artifact_pb2_grpc import ArtifactServiceStub
from generated.audit.v1.audit_pb2_grpc import AuditServiceStub
from generated.auth.v1.auth_pb2_grpc import AuthServiceStub
from generated.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from generated.hook.v1.hook_pb2_grpc import HookServiceStub
from generated.pipeline.v1.pipeline_pb2_grpc import PipelineServiceStub
from generated.schedule.v1.schedule_pb2_grpc import ScheduleServiceStub
from generated.secret.v1.secret_pb2_grpc import SecretServiceStub
from generated.stream.v1.stream_pb2_grpc import StreamServiceStub
from generated.task.v1.task_pb2_grpc import TaskServiceStub

CALL_LIMIT = timedelta(seconds=30)
LOOPBACK = ("127.", "localhost:", "[::1]:")

Request = TypeVar("Request")
Response = TypeVar("Response")
Params = ParamSpec("Params")
Result = TypeVar("Result")


class Api:
    """The control plane's services as this caller sees them."""

    def __init__(self, channel: aio.Channel, settings: Settings, token: str = "") -> None:
        self.settings = settings
        self.artifacts = ArtifactServiceStub(channel)
        self.audit = AuditServiceStub(channel)
        self.auth = AuthServiceStub(channel)
        self.catalog = CatalogServiceStub(channel)
        self.secrets = SecretServiceStub(channel)
        self.schedules = ScheduleServiceStub(channel)
        self.hooks = HookServiceStub(channel)
        self.tasks = TaskServiceStub(channel)
        self.pipelines = PipelineServiceStub(channel)
        self.agents = AgentServiceStub(channel)
        self.streams = StreamServiceStub(channel)
        namespace = settings.namespace
        self.metadata = aio.Metadata(*([("muster-namespace", namespace)] if namespace else []))
        if token:
            self.metadata.add("authorization", f"Bearer {token}")

    async def call(
        self, method: aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        """Return the answer to one call.

        Raises:
            grpc.aio.AioRpcError: when it is refused or not answered in time; `connect` turns it
                into a message.
        """
        return await method(request, metadata=self.metadata, timeout=CALL_LIMIT.total_seconds())


@asynccontextmanager
async def connect(settings: Settings, token: str | None = None) -> AsyncIterator[Api]:
    """Give access to the control plane; a call that fails inside leaves as a `Refusal`.

    Raises:
        CommandFailed: a token would go over the network in plain text, or a file cannot be read.
    """
    token = token_for(settings.server) if token is None else token
    if token and not settings.encrypted and not _stays_here(settings):
        raise CommandFailed(
            f"your token would go to {settings.server} in plain text — encrypt with --tls or "
            "--tls-ca FILE, or say --insecure if that is meant"
        )
    channel = _channel(settings)
    try:
        yield Api(channel, settings, token)
    except grpc.aio.AioRpcError as error:
        raise refusal(error, settings.server) from error
    finally:
        await channel.close()


def with_api(
    command: Callable[Concatenate[Api, Params], Awaitable[Result]],
) -> Callable[Params, Result]:
    """Make a command of a coroutine function that talks to the control plane."""

    @functools.wraps(command)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        async def within() -> Result:
            async with connect(current_settings()) as api:
                return await command(api, *args, **kwargs)

        return interrupt.run(within())

    return run


def _stays_here(settings: Settings) -> bool:
    return settings.insecure or settings.server.startswith(LOOPBACK)


def _channel(settings: Settings) -> aio.Channel:
    options = _channel_options(settings.server)
    if not settings.encrypted:
        return aio.insecure_channel(settings.server, options=options)
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise CommandFailed("--tls-cert and --tls-key belong together")
    credentials = grpc.ssl_channel_credentials(
        _read("--tls-ca", settings.tls_ca),
        _read("--tls-key", settings.tls_key),
        _read("--tls-cert", settings.tls_cert),
    )
    return aio.secure_channel(settings.server, credentials, options=options)


def _read(option: str, file: str) -> bytes | None:
    if not file:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(f"{option} {file}: {error.strerror}") from None


def _channel_options(server: str) -> list[tuple[str, int]]:
    """Return how the connection behaves."""
    options = [
        ("grpc.max_receive_message_length", 64 * 1024 * 1024),  # a batch of long log lines
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.keepalive_time_ms", 60_000),  # a follower must notice a host that vanished
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if server.startswith(LOOPBACK):
        options.append(("grpc.enable_http_proxy", 0))
    return options
