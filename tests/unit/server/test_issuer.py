"""When an agent gets its next key, and when it gets none any more."""

import pytest

from server.auth import Caller, Kind
from server.domain.errors import Unauthenticated
from server.domain.moment import SECOND
from server.domain.token import Token, TokenKind
from server.issuer import Issuer
from server.signing import Audience, SigningKeys
from tests.fakes.clock import HandClock

LIFETIME = 60 * SECOND
AGENT = Caller(name="a1", kind=Kind.AGENT, agent_id="a1", credential_id="c1")


class Credentials:
    """A database with one credential in it."""

    def __init__(self):
        self.kept = Token(
            1, "default", "c1", TokenKind.AGENT, "0" * 64, "a1", None, "a1", 0, "root"
        )  # fmt: skip
        self.asked = []

    async def token_named(self, public_id):
        self.asked.append(public_id)
        return self.kept


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def keys(tmp_path, clock):
    keys = SigningKeys(tmp_path / "keys", clock)
    keys.open(make=True)
    return keys


@pytest.fixture
def credentials():
    return Credentials()


@pytest.fixture
def issuer(keys, credentials, clock):
    return Issuer(keys, credentials, clock, LIFETIME)


async def test_a_key_is_renewed_once_half_its_time_is_over(issuer, keys, credentials, clock):
    ends_at = clock.now() + LIFETIME
    clock.advance(LIFETIME // 2)
    assert await issuer.renewed(AGENT, ends_at) == ("", ends_at)
    assert not credentials.asked
    clock.advance(1)
    text, later = await issuer.renewed(AGENT, ends_at)
    claims = keys.verify(text, Audience.AGENT)
    assert (claims["sub"], claims["cred"], claims["ns"]) == ("a1", "c1", "default")
    assert claims["exp"] == later // SECOND
    assert later == clock.now() + LIFETIME
    assert credentials.asked == ["c1"]


async def test_a_revoked_credential_gets_no_further_key(issuer, credentials, clock):
    ends_at = clock.now() + LIFETIME
    credentials.kept.revoked_at = clock.now()
    clock.advance(LIFETIME)
    with pytest.raises(Unauthenticated):
        await issuer.renewed(AGENT, ends_at)


@pytest.mark.parametrize("caller", [Caller(), Caller(kind=Kind.USER, name="ci")])
async def test_nobody_else_gets_a_key(issuer, credentials, clock, caller):
    assert await issuer.renewed(caller, clock.now()) == ("", clock.now())
    assert not credentials.asked


async def test_an_agent_that_a_certificate_names_has_no_key_to_renew(issuer, credentials):
    assert await issuer.renewed(AGENT, None) == ("", None)
    assert not credentials.asked
