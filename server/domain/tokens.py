"""Making tokens, noting that they were used, and taking them away."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from server.domain.access import Role
from server.domain.checks import Checks
from server.domain.errors import NotFound
from server.domain.ledger import Ledger
from server.domain.moment import Moment
from server.domain.token import EVERYWHERE, Token, TokenKind

NAME_LIMIT = 128
USES_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class CreateToken:
    """Keep a new token; answers it."""

    namespace: str
    public_id: str
    kind: TokenKind
    digest: str
    name: str
    created_by: str
    role: Role | None = None
    subject: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    uses: int | None = None
    expires_at: Moment | None = None

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Token:
        """See Command."""
        self._check(ledger.now)
        token = Token(
            ledger.source.new_key(),
            self.namespace,
            self.public_id,
            self.kind,
            self.digest,
            self.name,
            self.role,
            self.subject,
            ledger.now,
            self.created_by,
            dict(self.labels),
            self.uses,
            self.expires_at,
        )
        ledger.add_token(token)
        return token

    def _check(self, now: Moment) -> None:
        checks = Checks()
        checks.name("name", self.name, required=True, limit=NAME_LIMIT)
        if self.uses is not None:
            checks.number("uses", self.uses, 1, USES_LIMIT)
        if self.expires_at is not None and self.expires_at <= now:
            checks.fail("expires_at", "must be in the future")
        checks.done()


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Let a token count no more; answers it. One that is revoked already stays as it is."""

    namespace: str
    public_id: str
    kinds: frozenset[TokenKind]
    everywhere: bool = False
    """Whether the caller may revoke tokens that count in every namespace."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Token:
        """See Command."""
        token = ledger.source.token(self.public_id)
        if token is None or token.kind not in self.kinds or not self._reaches(token):
            raise NotFound("token", self.public_id)
        if token.revoked_at is None:
            token.revoked_at = ledger.now
            ledger.touch_token(token)
        return token

    def _reaches(self, token: Token) -> bool:
        if token.namespace == EVERYWHERE:
            return self.everywhere
        return token.namespace == self.namespace


@dataclass(frozen=True, slots=True)
class NoteUse:
    """Note when tokens, by public id, were shown last."""

    used: Mapping[str, Moment]

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        for public_id, at in sorted(self.used.items()):
            token = ledger.source.token(public_id)
            if token is not None and (token.used_at is None or token.used_at < at):
                token.used_at = at
                ledger.touch_token(token)
