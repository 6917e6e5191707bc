"""Who a token is taken for, and how long after it was taken away."""

import asyncio

import pytest

from server.auth import Presented
from server.authenticator import TokenAuthenticator
from server.domain.access import Role
from server.domain.changes import Effects
from server.domain.errors import Unauthenticated
from server.domain.token import Token, TokenKind
from server.engine.minting import mint
from server.engine.token_uses import TokenUses
from server.engine.writer import Committed
from server.signing import Audience, SigningKeys
from tests.fakes.clock import HandClock

TEXT, DIGEST = mint(TokenKind.USER)


def token(digest=DIGEST, kind=TokenKind.USER, **fields):
    role = Role.VIEWER if kind is TokenKind.USER else None
    return Token(1, "default", "t1", kind, digest, "ci", role, "", 0, "root", **fields)


class Tokens:
    """A database whose answers come when they are let go."""

    def __init__(self):
        self.kept = token()
        self.asked = 0
        self.reading = asyncio.Event()
        self.slow = False
        self.go_on = asyncio.Event()

    async def token(self, _digest_or_id):
        self.asked += 1
        found = self.kept
        if self.slow:
            self.reading.set()
            await self.go_on.wait()
        return found

    token_named = token

    def revoke(self):
        self.kept = token(revoked_at=1)
        return Committed([], [], Effects(tokens={self.kept.digest, self.kept.public_id}))


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def keys(tmp_path, clock):
    keys = SigningKeys(tmp_path / "keys", clock)
    keys.open(make=True)
    return keys


@pytest.fixture
def tokens():
    return Tokens()


@pytest.fixture
def authenticator(tokens, clock, keys):
    return TokenAuthenticator(tokens, clock, TokenUses(None, clock), keys)


@pytest.fixture(params=["a token", "an agent's key"])
def shown(request, clock, keys):
    text = TEXT
    if request.param != "a token":
        claims = {"ns": "default", "cred": "t1"}
        text = keys.sign(Audience.AGENT, "a1", clock.now() + 60_000, claims)
    return Presented(authorization=f"Bearer {text}")


async def test_the_database_is_asked_once_in_a_while(authenticator, tokens, shown, clock):
    for _ in range(3):
        await authenticator.caller(shown)
    assert tokens.asked == 1
    clock.advance(3_000)
    await authenticator.caller(shown)
    assert tokens.asked == 2


async def test_one_that_another_server_took_away_counts_for_two_seconds(
    authenticator, tokens, shown, clock
):
    await authenticator.caller(shown)
    tokens.revoke()
    await authenticator.caller(shown)
    clock.advance(3_000)
    with pytest.raises(Unauthenticated):
        await authenticator.caller(shown)


async def test_one_that_this_server_took_away_ends_at_once(authenticator, tokens, shown):
    await authenticator.caller(shown)
    authenticator.committed(tokens.revoke())
    with pytest.raises(Unauthenticated):
        await authenticator.caller(shown)


async def test_one_that_is_taken_away_while_it_is_read_ends_at_once(authenticator, tokens, shown):
    tokens.slow = True
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        early = group.create_task(authenticator.caller(shown))
        await tokens.reading.wait()
        authenticator.committed(tokens.revoke())
        tokens.go_on.set()
    assert early.done()  # its call came first
    with pytest.raises(Unauthenticated):
        await authenticator.caller(shown)
