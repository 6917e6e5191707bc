"""Finds out who calls, by the token a call shows.

What the database says of a token is kept for a second: that is how long a token that another
server has revoked may still count here. One that this server revokes ends at once.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from server.auth import DEFAULT_NAMESPACE, Caller, Kind, Presented
from server.domain.access import GRANTS, Permission
from server.domain.errors import Forbidden, NotFound, Unauthenticated
from server.domain.moment import SECOND
from server.domain.token import EVERYWHERE, Token, TokenKind, digest_of, kind_of
from server.engine.clock import Clock
from server.engine.token_uses import TokenUses
from server.engine.writer import Committed
from server.signing import Audience, SigningKeys
from server.stores.interfaces import Reader
from server.tls import agent_of

KEPT_SECONDS = 1.0
KEPT_TOKENS = 10_000
SCHEME = "bearer "

NOTHING_SHOWN = "The call shows no token; show one as `authorization: Bearer TOKEN`."
NO_TOKEN = "What the call shows is no token of Muster's, or was mistyped."  # noqa: S105
COUNTS_NO_MORE = (
    "This token does not count here: it was revoked, has ended, is used up, or another server made "
    "it."
)


LEASE_GONE = "This task's key does not count: the task has ended, or runs somewhere else."

KINDS = {
    TokenKind.USER: Kind.USER,
    TokenKind.ENROL: Kind.ENROLLING,
    TokenKind.AGENT: Kind.AGENT,
    TokenKind.UPLOAD: Kind.GRANT,
}
_ENROLS = frozenset({Permission.ENROL})
_UPLOADS = frozenset({Permission.UPLOAD})
_SERVES = frozenset({Permission.SERVE})
_ATTENDS = frozenset({Permission.ATTEND})


@dataclass(frozen=True, slots=True)
class _Known:
    token: Token | None
    read_at: float


class TokenAuthenticator:
    """See the module."""

    def __init__(self, reader: Reader, clock: Clock, uses: TokenUses, keys: SigningKeys) -> None:
        self._reader = reader
        self._keys = keys
        self._clock = clock
        self._uses = uses
        self._known: dict[str, _Known] = {}
        """By digest, and those of agents by id."""
        self._changes = 0

    async def caller(self, shown: Presented) -> Caller:
        """See Authenticator."""
        if not shown.authorization and (named := agent_of(shown.certificate_names)):
            return _certified(*named, shown)
        text = bearer_of(shown.authorization)
        if text.count(".") == 2:
            return await self._with_key(text, shown)
        token = await self._token(text)
        self._uses.note(token.public_id)
        return _caller(token, shown)

    async def _with_key(self, text: str, shown: Presented) -> Caller:
        """Return the agent or the task that shows a key.

        Raises:
            Unauthenticated: it does not count.
            Forbidden: the namespace it asks for is not its own.
        """
        claims = self._keys.verify(text, Audience.AGENT, Audience.TASK)
        if claims["aud"] == Audience.TASK:
            return await self._task(claims, shown)
        named = agent_of(shown.certificate_names)
        if named is not None and named != (claims["ns"], claims["sub"]):
            raise Unauthenticated("The agent's key and its certificate name two agents.")
        credential = await self._counting(str(claims.get("cred")), self._reader.token_named)
        return Caller(
            namespace=_same_namespace(claims, shown),
            name=claims["sub"],
            kind=Kind.AGENT,
            permissions=_SERVES,
            agent_id=claims["sub"],
            credential_id=credential.public_id,
            peer=shown.peer,
            request_id=shown.request_id,
            expires_at=claims["exp"] * SECOND,
        )

    async def _task(self, claims: dict[str, Any], shown: Presented) -> Caller:
        """Return the task that shows a key, if it still holds its lease."""
        task_id, namespace = claims["sub"], _same_namespace(claims, shown)
        try:
            task = (await self._reader.task(namespace, task_id)).task
        except NotFound:
            raise Unauthenticated(LEASE_GONE) from None
        if not task.leased or task.lease_id != claims.get("lease"):
            raise Unauthenticated(LEASE_GONE)
        return Caller(
            namespace=namespace,
            name=f"task {task_id}",
            kind=Kind.TASK,
            permissions=_ATTENDS,
            agent_id=str(claims.get("agent", "")),
            task_id=task_id,
            run_id=str(claims.get("run", "")),
            lease_id=task.lease_id,
            peer=shown.peer,
            request_id=shown.request_id,
            expires_at=claims["exp"] * SECOND,
        )

    def committed(self, committed: Committed) -> None:
        """Forget tokens that were changed."""
        if committed.effects.tokens:
            self._changes += 1
        for name in committed.effects.tokens:
            self._known.pop(name, None)

    async def _token(self, text: str) -> Token:
        """Return the token of this text.

        Raises:
            Unauthenticated: there is none, or it does not count.
        """
        digest = digest_of(text)
        if digest not in self._known and kind_of(text) is None:  # costs the database nothing
            raise Unauthenticated(NO_TOKEN)
        return await self._counting(digest, self._reader.token)

    async def _counting(
        self, name: str, read: Callable[[str], Coroutine[Any, Any, Token | None]]
    ) -> Token:
        """Return the token that `read` finds by this name: its digest or its id.

        Raises:
            Unauthenticated: there is none, or it does not count (any more).
        """
        known = self._known.get(name)
        now = self._clock.monotonic()
        if known is None or now - known.read_at > KEPT_SECONDS:
            changes = self._changes
            known = _Known(await read(name), now)
            if changes == self._changes:  # else this may be how it was before
                self._keep(name, known)
        if known.token is None or not known.token.counts(self._clock.now()):
            raise Unauthenticated(COUNTS_NO_MORE)
        return known.token

    def _keep(self, name: str, known: _Known) -> None:
        if len(self._known) >= KEPT_TOKENS:
            self._known.clear()
        self._known[name] = known


def bearer_of(authorization: str) -> str:
    """Return the token of an `authorization` header.

    Raises:
        Unauthenticated: it has none.
    """
    if not authorization:
        raise Unauthenticated(NOTHING_SHOWN)
    if authorization[: len(SCHEME)].lower() != SCHEME:
        raise Unauthenticated(NO_TOKEN)
    return authorization[len(SCHEME) :].strip()


def _certified(namespace: str, agent_id: str, shown: Presented) -> Caller:
    """Return the agent that a certificate names."""
    if shown.namespace not in (None, namespace):
        raise Forbidden(agent_id, f"anything in namespace {shown.namespace!r}")
    return Caller(
        namespace=namespace,
        name=agent_id,
        kind=Kind.AGENT,
        permissions=_SERVES,
        agent_id=agent_id,
        peer=shown.peer,
        request_id=shown.request_id,
    )


def _caller(token: Token, shown: Presented) -> Caller:
    return Caller(
        namespace=_namespace(token, shown.namespace),
        name=token.name,
        kind=KINDS[token.kind],
        permissions=_permissions(token),
        agent_id=token.subject,
        credential_id=token.public_id,
        peer=shown.peer,
        request_id=shown.request_id,
        role=token.role,
        server_wide=token.namespace == EVERYWHERE,
        expires_at=token.expires_at,
    )


def _same_namespace(claims: dict[str, Any], shown: Presented) -> str:
    namespace: str = claims["ns"]
    if shown.namespace not in (None, namespace):
        raise Forbidden(claims["sub"], f"anything in namespace {shown.namespace!r}")
    return namespace


def _namespace(token: Token, wanted: str | None) -> str:
    """Return where the call takes place.

    Raises:
        Forbidden: the token does not count there, whether there is such a namespace or not.
    """
    if token.namespace == EVERYWHERE:
        return wanted or DEFAULT_NAMESPACE
    if wanted not in (None, token.namespace):
        raise Forbidden(token.name, f"anything in namespace {wanted!r}")
    return token.namespace


def _permissions(token: Token) -> frozenset[Permission]:
    if token.kind is TokenKind.AGENT:
        return _SERVES
    if token.kind is TokenKind.UPLOAD:
        return _UPLOADS
    if token.kind is TokenKind.ENROL:
        return _ENROLS
    if token.role is None:
        return frozenset()
    everywhere = {Permission.MEASURE} if token.namespace == EVERYWHERE else set()
    return GRANTS[token.role] | everywhere
