"""Serving HTTP inside our own event loop, on a socket that is bound already."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.address import Address
from server.tls import ServerCertificate

CONNECTIONS = 2_000
"""How many there may be at once; the next are told 503."""

HEADER_BYTES = 32 * 1024
REQUEST_SECONDS = 10.0
"""How long a connection may take to send a request's head before it is closed."""

LOOK_SECONDS = 5.0
"""How often the files of the certificate are looked at; gRPC looks at each handshake too."""


def bind(address: Address) -> socket.socket:
    """Return a bound socket; with port 0 the system has chosen one.

    Raises:
        OSError: the address is taken or not of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family)


def address_of(bound: socket.socket) -> Address:
    """Return where the socket really listens."""
    host, port = bound.getsockname()[:2]
    return Address(host, port)


class WebServer:
    """One HTTP server; `run` it in a task group, and `stop` it to let `run` return."""

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        grace: timedelta,
        certificate: ServerCertificate | None = None,
    ) -> None:
        self._socket = bound
        self._certificate = certificate
        self._server = _OwnedServer(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                limit_concurrency=CONNECTIONS,
                h11_max_incomplete_event_size=HEADER_BYTES,
                ws="none",
                lifespan="off",
                log_config=None,  # servicelog/setup.py decides
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(grace.total_seconds())),
                ssl_context_factory=certificate.context() if certificate else None,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`, then let the answers that are under way finish."""
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._look_after_certificate())
            await self._server.serve(sockets=[self._socket])
            looking.cancel()

    async def _look_after_certificate(self) -> None:
        while self._certificate is not None:
            await asyncio.sleep(LOOK_SECONDS)
            self._certificate.look()

    async def started(self) -> None:
        """Wait until requests are answered."""
        await self._server.serving.wait()

    def stop(self) -> None:
        """Take no more requests."""
        self._server.should_exit = True


class PatientProtocol(H11Protocol):
    """HTTP/1.1 whose patience ends: a connection that sends no whole head in time is closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._patience.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; whoever works on the request learns that nobody waits for more.

        It may have begun well: then the application would answer too, and fail at that.
        """
        if self.cycle is None:
            super().send_400_response(msg)
            return
        if self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
        else:
            super().send_400_response(msg)
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._patience.cancel()
        super().on_response_complete()
        self._wait()

    def _wait(self) -> None:
        self._patience = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class _OwnedServer(uvicorn.Server):
    """A uvicorn that leaves signals to the program and tells when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone; `server/__main__.py` handles them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.serving.set()
