"""secret.v1.SecretService."""

from generated.secret.v1 import secret_pb2, secret_pb2_grpc
from server.auth import current_caller
from server.domain.auditing import NoteChange
from server.domain.kept_secret import check_name, check_put
from server.engine.writer import Writer
from server.rpc.context import Context
from server.secret_store import SecretInfo, SecretStore


class SecretService(secret_pb2_grpc.SecretServiceServicer):
    """Secrets: keep, list, forget."""

    def __init__(self, store: SecretStore, writer: Writer) -> None:
        self._store = store
        self._writer = writer

    async def PutSecret(
        self, request: secret_pb2.PutSecretRequest, context: Context
    ) -> secret_pb2.PutSecretResponse:
        """See the proto."""
        caller = current_caller()
        check_put(request.name, request.value)
        kept = await self._store.put(caller.namespace, request.name, request.value, caller.name)
        if self._store.outside:
            await self._writer.submit(NoteChange("secret.put", request.name))
        return secret_pb2.PutSecretResponse(secret=_message(kept))

    async def ListSecrets(
        self, request: secret_pb2.ListSecretsRequest, context: Context
    ) -> secret_pb2.ListSecretsResponse:
        """See the proto."""
        kept = await self._store.known(current_caller().namespace)
        return secret_pb2.ListSecretsResponse(secrets=map(_message, kept))

    async def DeleteSecret(
        self, request: secret_pb2.DeleteSecretRequest, context: Context
    ) -> secret_pb2.DeleteSecretResponse:
        """See the proto."""
        check_name(request.name)
        await self._store.delete(current_caller().namespace, request.name)
        if self._store.outside:
            await self._writer.submit(NoteChange("secret.delete", request.name))
        return secret_pb2.DeleteSecretResponse()


def _message(secret: SecretInfo) -> secret_pb2.Secret:
    return secret_pb2.Secret(
        name=secret.name,
        version=secret.version,
        created_at=secret.created_at,
        updated_at=secret.updated_at,
        updated_by=secret.updated_by,
        key_version=secret.key_version,
    )
