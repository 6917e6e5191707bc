"""Gives agents and running tasks their keys."""

from typing import Any

from server.auth import Caller, Kind
from server.domain.claiming import Assignment
from server.domain.errors import Unauthenticated
from server.domain.moment import DAY, Millis, Moment
from server.domain.token import Token
from server.engine.clock import Clock
from server.signing import Audience, SigningKeys
from server.stores.interfaces import Reader


class Issuer:
    """See the module."""

    def __init__(self, keys: SigningKeys, reader: Reader, clock: Clock, lifetime: Millis) -> None:
        self._keys = keys
        self._reader = reader
        self._clock = clock
        self._lifetime = lifetime

    def agent_key(self, token: Token, namespace: str) -> str:
        """Return a key for the agent whose credential this is."""
        claims: dict[str, Any] = {"ns": namespace, "cred": token.public_id}
        ends_at = self._clock.now() + self._lifetime
        return self._keys.sign(Audience.AGENT, token.subject, ends_at, claims)

    async def renewed(self, caller: Caller, ends_at: Moment | None) -> tuple[str, Moment | None]:
        """Return the next key of an agent that calls, and when that ends.

        Without a text, and with `ends_at`, where the key that it has counts long enough, or where
        no key has shown who it is.

        Raises:
            Unauthenticated: its credential was revoked or has ended.
        """
        now = self._clock.now()
        if caller.kind is not Kind.AGENT or ends_at is None or now <= ends_at - self._lifetime // 2:
            return "", ends_at
        token = await self._reader.token_named(caller.credential_id)
        if token is None or not token.counts(now):
            raise Unauthenticated("This agent's credential was revoked or has ended.")
        return self.agent_key(token, caller.namespace), now + self._lifetime

    def task_key(self, assignment: Assignment, agent_id: str) -> str:
        """Return a key for a task that goes to an agent; it counts as long as the lease does."""
        claims: dict[str, Any] = {
            "ns": assignment.namespace,
            "lease": assignment.lease_id,
            "run": assignment.run_id,
            "agent": agent_id,
        }
        ends_at = self._clock.now() + assignment.timeout + DAY
        return self._keys.sign(Audience.TASK, assignment.task_id, ends_at, claims)
