"""gRPC's side of the server's certificate."""

import grpc

from server.tls import Chain, ServerCertificate


def server_credentials(certificate: ServerCertificate) -> grpc.ServerCredentials:
    """Return credentials that follow the certificate's files: each handshake looks at them."""
    known = certificate.chain()

    def if_changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        certificate.look()
        if certificate.chain() is known:
            return None
        known = certificate.chain()
        return _configuration(known)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(known),
        if_changed,  # type: ignore[arg-type]  # None is allowed, and means no change
        require_client_authentication=certificate.asks_clients,
    )


def _configuration(chain: Chain) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(chain.key, chain.certificate)], root_certificates=chain.client_ca
    )
