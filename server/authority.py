"""A certificate authority of one's own: what `muster-server init` sets up a secure server with."""

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 398
SKEW = timedelta(hours=1)
"""How far another machine's clock may be behind ours."""

LATER = timedelta(days=1)

_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, certificate: Path, key: Path) -> None:
        """Write both; the key for its owner alone.

        Raises:
            OSError: they cannot be written.
        """
        secret = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_file(key, secret, 0o600)
        write_file(certificate, self.certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def make_authority(now: datetime) -> Pair:
    """Return a new authority, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Muster CA")
    builder = _begun(name, name, key, now, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_AUTHORITY_USAGE, critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def read_authority(certificate: Path, key: Path) -> Pair:
    """Return the authority in files.

    Raises:
        OSError: they cannot be read, or hold something else.
    """
    try:
        secret = serialization.load_pem_private_key(key.read_bytes(), None)
        read = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (ValueError, TypeError) as error:
        raise OSError(f"{key}: {error}") from None
    if not isinstance(secret, ec.EllipticCurvePrivateKey):
        raise OSError(f"{key}: is not a key that `muster-server init` makes")
    return Pair(read, secret)


def server_certificate(authority: Pair, hosts: Iterable[str], now: datetime) -> Pair:
    """Return a certificate for a server that is reached by these names and addresses.

    Raises:
        ValueError: one is neither.
    """
    names = [_general_name(host) for host in dict.fromkeys(hosts)]
    return _leaf(authority, "Muster server", names, ExtendedKeyUsageOID.SERVER_AUTH, now)


def agent_certificate(authority: Pair, uri: str, now: datetime) -> Pair:
    """Return a certificate for an agent."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    return _leaf(authority, "Muster agent", names, ExtendedKeyUsageOID.CLIENT_AUTH, now)


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Put a file in place as a whole.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _leaf(
    authority: Pair,
    common_name: str,
    names: list[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    now: datetime,
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject
    builder = _begun(_name(common_name), issuer, key, now, CERTIFICATE_DAYS)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_USAGE, critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    public = authority.key.public_key()
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    builder = builder.add_extension(issuer_id, critical=False)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + days * LATER)
        .add_extension(identifier, critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not host or any(letter in host for letter in " /:@,"):
        raise ValueError(f"{host!r} is neither a host name nor an address")
    return x509.DNSName(host)
