"""The server's certificate: read, checked, and read again when its files change."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

AGENT_URI = "muster://agent/"
"""What the name of an agent's certificate begins with; NAMESPACE/AGENT_ID follows."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a certificate, its key and the authority of clients' certificates are."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def all(self) -> list[Path]:
        """Every file."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]


@dataclass(frozen=True, slots=True)
class Chain:
    """What the files hold, in PEM."""

    key: bytes
    certificate: bytes
    client_ca: bytes | None


class ServerCertificate:
    """See the module. Both doors ask it at each handshake or look after it now and then."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamps: list[tuple[int, int]] = []
        self._context: ssl.SSLContext | None = None
        self._chain: Chain | None = None

    def open(self) -> None:
        """Read the files.

        Raises:
            OSError: one cannot be read, or does not hold what it should.
        """
        self._read()

    def context(self) -> Callable[[object, Callable[[], ssl.SSLContext]], ssl.SSLContext]:
        """Return what gives uvicorn its context: always the same, with a chain that is kept new."""

        def factory(_config: object, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
            if self._context is None:
                self._context = self._new_context()
            return self._context

        return factory

    def chain(self) -> Chain:
        """Return what the files hold; the same object until they change."""
        if self._chain is None:
            raise RuntimeError("the certificate is not open")
        return self._chain

    @property
    def asks_clients(self) -> bool:
        """Whether clients must show a certificate."""
        return self._files.client_ca is not None

    def look(self) -> None:
        """Take over files that have changed; damaged ones change nothing and are told of once."""
        try:
            stamps = [_stamp(path) for path in self._files.all]
        except OSError as error:
            log.warning("certificate stays as it was", reason=str(error))
            return
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._read()
            if self._context is not None:
                self._context.load_cert_chain(self._files.certificate, self._files.key)
            log.info("certificate read again", file=str(self._files.certificate))
        except OSError as error:
            log.warning("certificate stays as it was", reason=str(error))

    def _read(self) -> None:
        self._stamps = [_stamp(path) for path in self._files.all]
        self._new_context()  # refuses what does not belong together
        client_ca = self._files.client_ca
        self._chain = Chain(
            self._files.key.read_bytes(),
            self._files.certificate.read_bytes(),
            client_ca.read_bytes() if client_ca is not None else None,
        )

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._files.certificate, self._files.key)
            if self._files.client_ca is not None:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(self._files.client_ca)
        except ssl.SSLError as error:
            names = ", ".join(map(str, self._files.all))
            why = error.reason or "not a certificate and its key"
            raise OSError(f"{names}: {why.lower().replace('_', ' ')}") from None
        except OSError as error:
            missing = next((path for path in self._files.all if not path.is_file()), None)
            raise OSError(f"{missing or self._files.key}: {error.strerror}") from None
        return context


def agent_of(names: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the namespace and the id of the agent whose certificate has these names, or None."""
    for name in names:
        if name.startswith(AGENT_URI):
            namespace, slash, agent_id = name.removeprefix(AGENT_URI).partition("/")
            if namespace and slash and agent_id:
                return namespace, agent_id
    return None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino
