"""Webhooks: who may call for a pipeline, and what has been delivered."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from server.domain.moment import Moment

BODY_LIMIT = 25 * 1024 * 1024
"""Bytes of a delivery."""

DEDUPLICATED = 24 * 3600 * 1000
"""How long the same body counts as the same delivery where its id is not signed: milliseconds."""


class HookKind(StrEnum):
    """Who calls, and so how a call is signed and what it looks like."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    """Gitea and Forgejo."""
    BITBUCKET = "bitbucket"
    STANDARD = "standard"
    """Anything that signs as Standard Webhooks say."""
    HMAC = "hmac"
    """Anything that puts the HMAC-SHA256 of the body into a header of the hook's choice."""


@dataclass(slots=True)
class Hook:
    """A hook's row."""

    key: int
    namespace: str
    public_id: str
    pipeline_key: int
    pipeline_id: str
    kind: HookKind
    secret: str
    """Name of the kept secret that calls are signed with."""
    created_at: Moment
    previous_secret: str = ""
    """Another that counts as well, so that one can be changed for the other."""
    header: str = ""
    """With HMAC: where the signature is, in small letters."""
    created_by: str = ""


class DeliveryState(IntEnum):
    """Where a delivery stands. The numbers are those of `hook.v1.DeliveryState`."""

    RECEIVED = 1
    """It is kept and is to be looked at."""
    STARTED = 2
    """It has started a run, or several."""
    IGNORED = 3
    """It starts nothing, and that is as it should be."""
    REFUSED = 4
    """It cannot be understood, or the pipeline refuses it."""


@dataclass(slots=True)
class Delivery:
    """A delivery's row."""

    key: int
    namespace: str
    public_id: str
    hook_key: int
    pipeline_id: str
    received_at: Moment
    forge_id: str = ""
    """What the caller calls it; the same again is the same delivery."""
    digest: str = ""
    """SHA-256 of the body, where the caller's id is not signed."""
    event: str = ""
    """What the caller says that it is about."""
    size: int = 0
    body: bytes | None = None
    """Compressed by zlib; None when it lies in a blob."""
    blob: str = ""
    state: DeliveryState = DeliveryState.RECEIVED
    outcome: str = ""
    """Why nothing has started, or empty."""
    run_ids: list[str] = field(default_factory=list)
    due_at: Moment | None = None
    """When it is to be looked at (again); None once that is done."""
    finished_at: Moment | None = None
    redelivers: str | None = None
    """The delivery that it repeats."""
