"""artifact.v1.ArtifactService."""

from dataclasses import asdict

from uuid_utils import uuid7

from generated.artifact.v1 import artifact_pb2, artifact_pb2_grpc
from server.auth import Caller, Kind, check_acts_for, check_attends, current_caller
from server.domain.artifact import Artifact, Wanted, latest
from server.domain.checks import Checks
from server.domain.errors import Forbidden, Invalid, NotFound, Violation
from server.domain.granting_uploads import CreateUploadGrant
from server.domain.handing_in import DeleteArtifact
from server.domain.token import Token, TokenKind
from server.domain.tokens import RevokeToken
from server.engine.artifacts import SIGNED_AT_ONCE, Artifacts
from server.engine.clock import Clock
from server.engine.minting import mint
from server.engine.writer import Writer
from server.rpc.context import Context
from server.stores.interfaces import Reader, StoredPart

PAGE_DEFAULT = 100
PAGE_LIMIT = 1000


class ArtifactService(artifact_pb2_grpc.ArtifactServiceServicer):
    """Files: hand in, look up, let go."""

    def __init__(self, artifacts: Artifacts, writer: Writer, reader: Reader, clock: Clock) -> None:
        self._artifacts = artifacts
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def BeginUpload(
        self, request: artifact_pb2.BeginUploadRequest, context: Context
    ) -> artifact_pb2.BeginUploadResponse:
        """See the proto."""
        caller = current_caller()
        check_acts_for(request.agent_id)
        task_id, lease_id, grant_id = request.task_id, request.lease_id, ""
        if caller.kind is Kind.TASK:
            check_attends(request.task_id or caller.task_id)
            task_id, lease_id = caller.task_id, caller.lease_id
        elif not task_id:
            grant_id = (await self._grant(context)).public_id
        elif caller.kind is Kind.GRANT:
            raise Forbidden(caller.name, "for a task")
        begun = await self._artifacts.begin(
            caller.namespace,
            Wanted(
                request.name,
                request.path,
                request.size,
                request.sha256,
                request.destination,
                request.expire_days,
            ),
            task_id=task_id,
            lease_id=lease_id,
            agent_id=request.agent_id,
            grant_id=grant_id,
        )
        return artifact_pb2.BeginUploadResponse(
            artifact_id=begun.artifact.public_id,
            part_size=begun.artifact.part_size,
            parts=[
                artifact_pb2.Part(number=part.number, etag=part.etag, size=part.size)
                for part in begun.parts
            ],
            stored=begun.stored,
        )

    async def SignParts(
        self, request: artifact_pb2.SignPartsRequest, context: Context
    ) -> artifact_pb2.SignPartsResponse:
        """See the proto."""
        checks = Checks()
        checks.number("numbers", len(request.numbers), 1, SIGNED_AT_ONCE)
        checks.done()
        artifact = await self._own(request.artifact_id, context)
        urls = await self._artifacts.sign(artifact, request.numbers)
        return artifact_pb2.SignPartsResponse(
            urls=[artifact_pb2.PartUrl(number=number, url=url) for number, url in urls]
        )

    async def BorrowCredentials(
        self, request: artifact_pb2.BorrowCredentialsRequest, context: Context
    ) -> artifact_pb2.BorrowCredentialsResponse:
        """See the proto."""
        lent = await self._artifacts.lend(await self._grant(context))
        return artifact_pb2.BorrowCredentialsResponse(**asdict(lent))

    async def CompleteUpload(
        self, request: artifact_pb2.CompleteUploadRequest, context: Context
    ) -> artifact_pb2.CompleteUploadResponse:
        """See the proto."""
        artifact = await self._own(request.artifact_id, context)
        parts = [StoredPart(part.number, part.etag, part.size) for part in request.parts]
        stored = await self._artifacts.complete(artifact, parts, current_caller().agent_id)
        return artifact_pb2.CompleteUploadResponse(artifact=artifact_message(stored))

    async def AbortUpload(
        self, request: artifact_pb2.AbortUploadRequest, context: Context
    ) -> artifact_pb2.AbortUploadResponse:
        """See the proto."""
        artifact = await self._own(request.artifact_id, context)
        await self._writer.submit(
            DeleteArtifact(artifact.namespace, artifact.public_id, only_unstored=True)
        )
        return artifact_pb2.AbortUploadResponse()

    async def _own(self, public_id: str, context: Context) -> Artifact:
        """Return an artifact that the caller hands in.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        caller = current_caller()
        artifact = await self._artifacts.open_upload(caller.namespace, public_id)
        if artifact.grant_id:
            if artifact.grant_id != (await self._grant(context)).public_id:
                raise NotFound("artifact", public_id)
        elif not await self._attends(caller, artifact):
            raise NotFound("artifact", public_id)
        return artifact

    async def _attends(self, caller: Caller, artifact: Artifact) -> bool:
        if caller.kind is Kind.TASK:
            return (artifact.task_id, artifact.lease_id) == (caller.task_id, caller.lease_id)
        if caller.kind is Kind.AGENT:
            view = await self._reader.task(caller.namespace, artifact.task_id)
            return view.task.last_agent_id == caller.agent_id
        return caller.kind is Kind.ANYBODY

    async def _grant(self, context: Context) -> Token:
        """Return the grant that the caller shows.

        Raises:
            Unauthenticated: it shows none that counts.
        """
        shown = dict(context.invocation_metadata() or ()).get("authorization", "")
        text = shown.decode() if isinstance(shown, bytes) else shown
        return await self._artifacts.grant(text[len("bearer ") :].strip())

    async def ListArtifacts(
        self, request: artifact_pb2.ListArtifactsRequest, context: Context
    ) -> artifact_pb2.ListArtifactsResponse:
        """See the proto."""
        caller = current_caller()
        checks = Checks()
        checks.number("page_size", request.page_size, 0, PAGE_LIMIT)
        if request.task_id and request.run_id:
            checks.fail("run_id", "say a task or a run, not both")
        after = request.page_token
        if after and not after.isdecimal():
            checks.fail("page_token", "is none of ours")
        checks.done()
        if caller.kind is Kind.TASK:
            check_attends(request.task_id, request.run_id)
        size = request.page_size or PAGE_DEFAULT
        found = await self._found(caller.namespace, request, int(after or 0), size + 1)
        messages = []
        for each in found[:size]:
            message = artifact_message(each)
            if request.with_urls:
                message.download_url = await self._artifacts.url(each)
            messages.append(message)
        more = len(found) > size
        return artifact_pb2.ListArtifactsResponse(
            artifacts=messages, next_page_token=str(found[size - 1].key) if more else ""
        )

    async def _found(
        self, namespace: str, request: artifact_pb2.ListArtifactsRequest, after: int, count: int
    ) -> list[Artifact]:
        """Return the artifacts behind a key that are meant, at least so many where there are."""

        def is_meant(each: Artifact) -> bool:
            return (
                each.key > after
                and (not request.name or each.name == request.name)
                and (not request.task_name or each.is_of_job(request.task_name))
            )

        if request.task_id or request.run_id:
            whole = await self._reader.artifacts(
                namespace, task_id=request.task_id, run_id=request.run_id
            )
            return list(filter(is_meant, latest(whole) if request.run_id else whole))
        found: list[Artifact] = []
        place = after
        while len(found) < count:
            page = await self._reader.artifacts(namespace, after=place, limit=PAGE_LIMIT)
            found += filter(is_meant, page)
            if len(page) < PAGE_LIMIT:
                break
            place = page[-1].key
        return found

    async def GetArtifact(
        self, request: artifact_pb2.GetArtifactRequest, context: Context
    ) -> artifact_pb2.GetArtifactResponse:
        """See the proto."""
        caller = current_caller()
        artifact = await self._reader.artifact(caller.namespace, request.artifact_id)
        if caller.kind is Kind.TASK and not (artifact.run_id and artifact.run_id == caller.run_id):
            check_attends(artifact.task_id)
        message = artifact_message(artifact)
        message.download_url = await self._artifacts.url(artifact)
        return artifact_pb2.GetArtifactResponse(artifact=message)

    async def DeleteArtifact(
        self, request: artifact_pb2.DeleteArtifactRequest, context: Context
    ) -> artifact_pb2.DeleteArtifactResponse:
        """See the proto."""
        namespace = current_caller().namespace
        await self._writer.submit(DeleteArtifact(namespace, request.artifact_id))
        return artifact_pb2.DeleteArtifactResponse()

    async def CreateUploadGrant(
        self, request: artifact_pb2.CreateUploadGrantRequest, context: Context
    ) -> artifact_pb2.CreateUploadGrantResponse:
        """See the proto."""
        caller = current_caller()
        text, digest = mint(TokenKind.UPLOAD)
        command = CreateUploadGrant(
            caller.namespace,
            str(uuid7()),
            digest,
            request.caller,
            caller.name,
            prefix=request.prefix,
            max_bytes=request.max_bytes,
            lifetime=request.lifetime,
            expire_days=request.expire_days,
        )
        token = await self._writer.submit(command)
        return artifact_pb2.CreateUploadGrantResponse(grant=_grant_message(token, 0), key=text)

    async def ListUploadGrants(
        self, request: artifact_pb2.ListUploadGrantsRequest, context: Context
    ) -> artifact_pb2.ListUploadGrantsResponse:
        """See the proto."""
        namespace, now = current_caller().namespace, self._clock.now()
        tokens = await self._reader.tokens([namespace], TokenKind.UPLOAD)
        grants = [token for token in tokens if token.counts(now)]
        used = await self._reader.uploaded_bytes(namespace) if grants else {}
        return artifact_pb2.ListUploadGrantsResponse(
            grants=[_grant_message(each, used.get(each.public_id, 0)) for each in grants]
        )

    async def RevokeUploadGrant(
        self, request: artifact_pb2.RevokeUploadGrantRequest, context: Context
    ) -> artifact_pb2.RevokeUploadGrantResponse:
        """See the proto."""
        if not request.grant_id:
            raise Invalid([Violation("grant_id", "must not be empty")])
        namespace = current_caller().namespace
        kinds = frozenset({TokenKind.UPLOAD})
        await self._writer.submit(RevokeToken(namespace, request.grant_id, kinds))
        return artifact_pb2.RevokeUploadGrantResponse()


def artifact_message(artifact: Artifact) -> artifact_pb2.Artifact:
    """Return an artifact, without a URL."""
    return artifact_pb2.Artifact(
        artifact_id=artifact.public_id,
        name=artifact.name,
        path=artifact.path,
        size=artifact.size,
        sha256=artifact.sha256,
        task_id=artifact.task_id,
        attempt=artifact.attempt,
        run_id=artifact.run_id,
        task_name=artifact.task_name,
        handed_in_by=artifact.handed_in_by,
        created_at=artifact.stored_at or artifact.created_at,
        expire_at=artifact.expire_at or 0,
    )


def _grant_message(token: Token, used: int) -> artifact_pb2.UploadGrant:
    return artifact_pb2.UploadGrant(
        grant_id=token.public_id,
        caller=token.subject,
        prefix=token.labels["prefix"],
        max_bytes=int(token.labels["max_bytes"]),
        used_bytes=used,
        expire_days=int(token.labels["expire_days"]),
        created_at=token.created_at,
        expires_at=token.expires_at or 0,
        created_by=token.created_by,
    )
