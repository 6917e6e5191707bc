"""Upload grants: a producer outside of tasks may hand in files for a short time."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from server.domain.artifact import DAYS_LIMIT, path_problem
from server.domain.checks import Checks, printable
from server.domain.ledger import Ledger
from server.domain.moment import DAY, SECOND
from server.domain.token import Token, TokenKind

LIFETIME = 900
LONGEST_LIFETIME = 86_400
"""Seconds."""

BUDGET = 1024**3
LARGEST_BUDGET = 1024**5
"""Bytes."""

PREFIX = "uploads"
_CALLER = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def place_of(grant: Token) -> str:
    """Return where in its namespace a grant's files lie: its prefix, its caller and its day."""
    day = date(1970, 1, 1) + timedelta(days=grant.created_at // DAY)
    return f"{grant.labels['prefix']}/{grant.subject}/{day.isoformat()}"


@dataclass(frozen=True, slots=True)
class CreateUploadGrant:
    """Keep a new grant, which is a token; answers it."""

    namespace: str
    public_id: str
    digest: str
    caller: str
    created_by: str
    prefix: str = ""
    max_bytes: int = 0
    lifetime: int = 0
    expire_days: int = 0

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Token:
        """See Command.

        Raises:
            Invalid: a field is malformed.
        """
        self._check()
        token = Token(
            key=ledger.source.new_key(),
            namespace=self.namespace,
            public_id=self.public_id,
            kind=TokenKind.UPLOAD,
            digest=self.digest,
            name=f"uploads of {self.caller}",
            role=None,
            subject=self.caller,
            created_at=ledger.now,
            created_by=self.created_by,
            labels={
                "prefix": self.prefix or PREFIX,
                "max_bytes": str(self.max_bytes or BUDGET),
                "expire_days": str(self.expire_days),
            },
            expires_at=ledger.now + (self.lifetime or LIFETIME) * SECOND,
        )
        ledger.add_token(token)
        return token

    def _check(self) -> None:
        checks = Checks()
        if not _CALLER.fullmatch(self.caller) or set(self.caller) == {"."}:
            text = f"must be 1 to 64 letters, digits and . _ -, is {printable(self.caller)!r}"
            checks.fail("caller", text)
        if self.prefix and (problem := path_problem(self.prefix)):
            checks.fail("prefix", f"{printable(self.prefix)!r} {problem}")
        checks.number("max_bytes", self.max_bytes, 0, LARGEST_BUDGET)
        checks.number("lifetime", self.lifetime, 0, LONGEST_LIFETIME)
        checks.number("expire_days", self.expire_days, 0, DAYS_LIMIT)
        checks.done()
