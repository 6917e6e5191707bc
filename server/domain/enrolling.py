"""Who may register as which agent."""

from dataclasses import dataclass

from server.domain.agent import Agent
from server.domain.errors import Forbidden, StillEnrolled, Unauthenticated
from server.domain.ledger import Ledger
from server.domain.moment import DAY
from server.domain.token import Token, TokenKind

CREDENTIAL_LIFE = 30 * DAY
"""How long an agent may stay away before it has to be enrolled again."""


@dataclass(frozen=True, slots=True)
class Identity:
    """How an agent that registers has shown who it is."""

    token_id: str
    """The token that the call showed: its credential, or one to enrol with."""
    digest: str = ""
    """The digest of the credential it wants from now on; one it has already stays."""
    certified: bool = False
    """Whether a certificate of its own has shown who it is, and no token."""


def admit(
    ledger: Ledger, agent: Agent | None, agent_id: str, namespace: str, identity: Identity
) -> Token:
    """Return the credential of an agent that registers, made now where it enrols.

    Raises:
        Unauthenticated: what it shows does not count any more.
        Forbidden: it is another agent's, or the agent is of another namespace.
        StillEnrolled: it enrols under the id of an agent that has its own credential.
    """
    if agent is not None and agent.namespace != namespace:
        raise Forbidden(agent_id, f"anything for agent {agent_id!r} of another namespace")
    if identity.certified:
        return _certified(ledger, agent_id, namespace, identity)
    shown = ledger.source.token(identity.token_id)
    if shown is None or not shown.counts(ledger.now):
        raise Unauthenticated("The agent's token was revoked, has ended, or is used up.")
    if shown.subject not in ("", agent_id):
        raise Forbidden(shown.name, f"anything for agent {agent_id!r}")
    if shown.kind is TokenKind.AGENT:
        return _kept_alive(ledger, shown)
    return _enrolled(ledger, shown, agent_id, identity)


def _certified(ledger: Ledger, agent_id: str, namespace: str, identity: Identity) -> Token:
    """Return the credential of an agent that a certificate names.

    Raises:
        Unauthenticated: it was revoked; the certificate does not say so.
    """
    known = ledger.source.tokens_of(agent_id)
    for credential in known:
        if credential.counts(ledger.now):
            return _kept_alive(ledger, credential)
    if any(credential.revoked_at is not None for credential in known):
        raise Unauthenticated(
            "The agent was revoked; to let it back in, make it a token: "
            f"muster token agent {agent_id}"
        )
    return _new_credential(ledger, agent_id, namespace, identity, "its certificate", {})


def _kept_alive(ledger: Ledger, credential: Token) -> Token:
    if credential.expires_at is not None:
        credential.expires_at = max(credential.expires_at, ledger.now + CREDENTIAL_LIFE)
        ledger.touch_token(credential)
    return credential


def _enrolled(ledger: Ledger, shown: Token, agent_id: str, identity: Identity) -> Token:
    known = [each for each in ledger.source.tokens_of(agent_id) if each.counts(ledger.now)]
    for credential in known:
        # No secret: the agent has just sent this digest, and the answer is its own credential.
        if credential.digest == identity.digest:
            return _kept_alive(ledger, credential)
    if known:
        raise StillEnrolled(agent_id)
    if ledger.source.token_of_digest(identity.digest) is not None:
        raise Forbidden(agent_id, "anything with the credential of another")
    if shown.uses_left is not None:
        shown.uses_left -= 1
        ledger.touch_token(shown)
    return _new_credential(
        ledger, agent_id, shown.namespace, identity, shown.name, dict(shown.labels)
    )


def _new_credential(
    ledger: Ledger,
    agent_id: str,
    namespace: str,
    identity: Identity,
    made_by: str,
    labels: dict[str, str],
) -> Token:
    key = ledger.source.new_key()
    credential = Token(
        key,
        namespace,
        f"{agent_id[:100]}.{key}",
        TokenKind.AGENT,
        identity.digest,
        agent_id,
        None,
        agent_id,
        ledger.now,
        made_by,
        labels,
        expires_at=ledger.now + CREDENTIAL_LIFE,
    )
    ledger.add_token(credential)
    return credential
