"""Finds out who calls, by the token a call shows.

What the database says of a token is kept for two seconds: that is how long a token that another
server has revoked may still count here. One that this server revokes ends at once.
"""

from dataclasses import dataclass

from server.auth import DEFAULT_NAMESPACE, Caller, Kind, Presented
from server.domain.access import GRANTS, Permission
from server.domain.errors import Forbidden, Unauthenticated
from server.domain.token import EVERYWHERE, Token, TokenKind, digest_of, kind_of
from server.engine.clock import Clock
from server.engine.token_uses import TokenUses
from server.engine.writer import Committed
from server.stores.interfaces import Reader

KEPT_SECONDS = 2.0
KEPT_TOKENS = 10_000
SCHEME = "bearer "

NOTHING_SHOWN = "The call shows no token; show one as `authorization: Bearer TOKEN`."
NO_TOKEN = "What the call shows is no token of Muster's, or was mistyped."  # noqa: S105
COUNTS_NO_MORE = (
    "This token does not count here: it was revoked, has ended, is used up, or another server made "
    "it."
)


@dataclass(frozen=True, slots=True)
class _Known:
    token: Token | None
    read_at: float


class TokenAuthenticator:
    """See the module."""

    def __init__(self, reader: Reader, clock: Clock, uses: TokenUses) -> None:
        self._reader = reader
        self._clock = clock
        self._uses = uses
        self._known: dict[str, _Known] = {}

    async def caller(self, shown: Presented) -> Caller:
        """See Authenticator."""
        text = bearer_of(shown.authorization)
        token = await self._token(text)
        self._uses.note(token.public_id)
        return _caller(token, shown)

    def committed(self, committed: Committed) -> None:
        """Forget tokens that were changed."""
        for digest in committed.effects.tokens:
            self._known.pop(digest, None)

    async def _token(self, text: str) -> Token:
        """Return the token of this text.

        Raises:
            Unauthenticated: there is none, or it does not count.
        """
        digest = digest_of(text)
        known = self._known.get(digest)
        now = self._clock.monotonic()
        if known is None or now - known.read_at > KEPT_SECONDS:
            if kind_of(text) is None:  # costs the database nothing
                raise Unauthenticated(NO_TOKEN)
            known = _Known(await self._reader.token(digest), now)
            self._keep(digest, known)
        if known.token is None or not known.token.counts(self._clock.now()):
            raise Unauthenticated(COUNTS_NO_MORE)
        return known.token

    def _keep(self, digest: str, known: _Known) -> None:
        if len(self._known) >= KEPT_TOKENS:
            self._known.clear()
        self._known[digest] = known


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


def _caller(token: Token, shown: Presented) -> Caller:
    return Caller(
        namespace=_namespace(token, shown.namespace),
        name=token.name,
        kind=Kind.USER if token.kind is TokenKind.USER else Kind.ENROLLING,
        permissions=_permissions(token),
        agent_id=token.subject,
        credential_id=token.public_id,
        peer=shown.peer,
        role=token.role,
        server_wide=token.namespace == EVERYWHERE,
        expires_at=token.expires_at,
    )


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
    if token.kind is not TokenKind.USER:
        return frozenset({Permission.ENROL})
    if token.role is None:
        return frozenset()
    everywhere = {Permission.MEASURE} if token.namespace == EVERYWHERE else set()
    return GRANTS[token.role] | everywhere
