"""Artifacts between the store and the database: nothing is listed that is not stored whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import structlog
from uuid_utils import uuid7

from server.domain.artifact import (
    MAX_PARTS,
    Artifact,
    Wanted,
    folder_name,
    incoming_folder,
    incoming_name,
    latest,
)
from server.domain.errors import Invalid, NotFound, Unauthenticated, Violation, WrongState
from server.domain.granting_uploads import place_of
from server.domain.handing_in import BeginArtifact, NoteUpload, StoreArtifact
from server.domain.moment import SECOND
from server.domain.token import Token, TokenKind, digest_of
from server.engine.clock import Clock
from server.engine.url_signer import UrlSigner
from server.engine.writer import Writer
from server.stores.interfaces import Credentials, Lender, ObjectStore, Reader, StoredPart

PART = 16 * 1024**2
"""Bytes of a part, unless a file would have too many of them."""

URL_SECONDS = 900
SIGNED_AT_ONCE = 100
READ_BACK = 64 * 1024**2
"""Bytes up to which a file in a store far away is read again to see that it is what it should."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken; 0 is no limit. Bytes."""

    file: int = 0
    namespace: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload that has begun, or goes on."""

    artifact: Artifact
    parts: Sequence[StoredPart]
    stored: bool


class Artifacts:
    """Takes files in and gives them out."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        store: ObjectStore,
        signer: UrlSigner,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._clock = clock
        self.store = store
        self.signer = signer
        self._writer = writer
        self._reader = reader
        self._limits = limits

    async def begin(
        self,
        namespace: str,
        wanted: Wanted,
        *,
        task_id: str = "",
        lease_id: str = "",
        agent_id: str = "",
        grant_id: str = "",
    ) -> Begun:
        """Begin to take a file, or go on with one.

        Raises:
            Invalid: a field is malformed.
            LimitReached: it is too large, or too much is kept.
            WrongState: the lease is not current, or the grant has ended.
            StoreUnavailable: the store does not answer.
        """
        wanted.check(self._limits.file)
        command = BeginArtifact(
            namespace,
            str(uuid7()),
            wanted,
            part_size_of(wanted.size),
            self._limits.namespace,
            task_id,
            lease_id,
            agent_id,
            grant_id,
        )
        artifact = await self._writer.submit(command)
        if artifact.stored_at is not None:
            return Begun(artifact, (), stored=True)
        parts = None
        if artifact.upload:
            parts = await self.store.parts(artifact.blob, artifact.upload)
        if parts is None:
            if not wanted.size:
                await self.store.put_empty(artifact.blob)
                stored = await self._writer.submit(
                    StoreArtifact(namespace, artifact.public_id, agent_id)
                )
                return Begun(stored, (), stored=True)
            upload = await self.store.begin(artifact.blob)
            await self._writer.submit(NoteUpload(artifact.public_id, upload))
            artifact, parts = replace(artifact, upload=upload), []
        return Begun(artifact, parts, stored=False)

    async def sign(self, artifact: Artifact, numbers: Iterable[int]) -> list[tuple[int, str]]:
        """Return where parts are put, by number.

        Raises:
            Invalid: there is no such part.
            WrongState: it is stored already, or its upload has not begun.
        """
        self._check_open(artifact)
        count = parts_of(artifact)
        urls = []
        for index, number in enumerate(numbers):
            if not 1 <= number <= count:
                text = f"must be from 1 to {count}, is {number}"
                raise Invalid([Violation(f"numbers[{index}]", text)])
            url = await self.store.part_url(artifact.blob, artifact.upload, number, URL_SECONDS)
            urls.append((number, url or self._own_part_url(artifact, number)))
        return urls

    def _own_part_url(self, artifact: Artifact, number: int) -> str:
        token = self.signer.token(
            URL_SECONDS,
            k="put",
            u=artifact.upload,
            n=number,
            o=(number - 1) * artifact.part_size,
            s=size_of_part(artifact, number),
        )
        return f"{self.signer.base}/artifacts/parts/{token}"

    async def lend(self, grant: Token) -> Credentials:
        """Return what the store takes for a while from whoever has a grant, in place of URLs.

        It puts each file that it has announced into the folder, under the artifact's id.

        Raises:
            WrongState: the server lends none.
            StoreUnavailable: the store does not answer, or refuses.
        """
        store = self.store
        if not isinstance(store, Lender) or not store.lends:
            why = "gets no credentials: the server has no --artifact-role; put parts to their URLs"
            raise WrongState("upload grant", grant.public_id, why)
        folder = incoming_folder(folder_name(grant.namespace, place_of(grant)), grant.public_id)
        left = max(0, (grant.expires_at or 0) - self._clock.now()) // SECOND
        return await store.lend(folder, f"grant-{grant.public_id}", left)

    async def complete(
        self, artifact: Artifact, parts: Sequence[StoredPart], agent_id: str = ""
    ) -> Artifact:
        """Make a file of its parts and list it; once more is no fault.

        Raises:
            WrongState: parts are missing, or the stored file is another than was announced.
            StoreUnavailable: the store does not answer.
        """
        if artifact.stored_at is not None:
            return artifact
        if artifact.grant_id and not parts and isinstance(self.store, Lender):
            await self._take_in(artifact, self.store)
        there = await self.store.parts(artifact.blob, artifact.upload) if artifact.upload else None
        if there is not None:
            await self.store.complete(
                artifact.blob, artifact.upload, self._checked_parts(artifact, parts, there)
            )
        await self._check_stored(artifact)
        return await self._writer.submit(
            StoreArtifact(artifact.namespace, artifact.public_id, agent_id)
        )

    async def _take_in(self, artifact: Artifact, store: Lender) -> None:
        """Make a file of what a producer put with borrowed credentials, if it did.

        Whoever still has them cannot change the file. Done half, it can be done again.
        """
        source = incoming_name(artifact)
        size = await self.store.size(source)
        if size is None:
            return
        if size == artifact.size:
            await store.take(source, artifact.blob)
            await self.store.abort(artifact.blob)
        await self.store.delete(source)
        if size != artifact.size:
            raise _other_size(artifact, size)

    def _checked_parts(
        self, artifact: Artifact, told: Sequence[StoredPart], there: Sequence[StoredPart]
    ) -> list[StoredPart]:
        """Return the parts that make the file, in order: those that were told, as they are stored.

        A store may still list a part that another one has taken the place of.
        """
        etags = {part.number: part.etag.strip('"') for part in told}
        stored = {(part.number, part.etag): part for part in there}
        found = []
        for number in range(1, parts_of(artifact) + 1):
            part = stored.get((number, etags.get(number, "")))
            if part is None or part.size != size_of_part(artifact, number):
                why = f"has no part {number} as it was told; put it, and say its etag"
                raise WrongState("artifact", artifact.public_id, why)
            found.append(part)
        return found

    async def _check_stored(self, artifact: Artifact) -> None:
        size = await self.store.size(artifact.blob)
        if size is None:
            raise WrongState("artifact", artifact.public_id, "is not there; begin anew")
        if size != artifact.size:
            raise _other_size(artifact, size)
        # What an agent sends is checked part by part by its own digests; of a stranger, all of it.
        if not (self.store.verifies or artifact.grant_id or artifact.size <= READ_BACK):
            return
        found = await self.store.sha256(artifact.blob)
        if found != artifact.sha256:
            await self.store.delete(artifact.blob)
            why = f"has the SHA-256 {found}, and {artifact.sha256} was announced; begin anew"
            raise WrongState("artifact", artifact.public_id, why)

    async def url(self, artifact: Artifact, seconds: int = URL_SECONDS) -> str:
        """Return where a file can be fetched for a short time."""
        filename = artifact.path.rpartition("/")[2]
        if url := await self.store.url(artifact.blob, filename, seconds):
            return url
        token = self.signer.token(seconds, k="get", b=artifact.blob, f=filename, h=artifact.sha256)
        return f"{self.signer.base}/artifacts/files/{token}"

    async def grant(self, text: str) -> Token:
        """Return the upload grant with this key.

        Raises:
            Unauthenticated: there is none that counts.
        """
        token = await self._reader.token(digest_of(text)) if text else None
        counts = token is not None and token.counts(self._clock.now())
        if token is None or not counts or token.kind is not TokenKind.UPLOAD:
            raise Unauthenticated(
                "Show an upload grant as `authorization: Bearer KEY`; people with the role operator"
                " make one: muster artifact grant create CALLER"
            )
        return token

    async def of_run(self, namespace: str, run_id: str) -> list[Artifact]:
        """Return of each job of a run what its last attempt left."""
        return latest(await self._reader.artifacts(namespace, run_id=run_id)) if run_id else []

    async def open_upload(self, namespace: str, public_id: str) -> Artifact:
        """Return an artifact that is being handed in, or is stored already.

        Raises:
            NotFound: there is none.
        """
        return await self._reader.unstored_artifact(namespace, public_id)

    def _check_open(self, artifact: Artifact) -> None:
        if artifact.stored_at is not None:
            raise WrongState("artifact", artifact.public_id, "is stored already")
        if not artifact.upload:
            raise NotFound("upload of artifact", artifact.public_id)


def _other_size(artifact: Artifact, size: int) -> WrongState:
    why = f"has {size} bytes, and {artifact.size} were announced"
    return WrongState("artifact", artifact.public_id, why)


def part_size_of(size: int) -> int:
    """Return how large the parts of a file are."""
    part = PART
    while part * MAX_PARTS < size:
        part *= 2
    return part


def parts_of(artifact: Artifact) -> int:
    """Return how many parts a file has."""
    return max(1, -(-artifact.size // artifact.part_size))


def size_of_part(artifact: Artifact, number: int) -> int:
    """Return how many bytes a part has."""
    return min(artifact.part_size, artifact.size - (number - 1) * artifact.part_size)
