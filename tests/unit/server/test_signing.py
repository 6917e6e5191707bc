"""Keys of agents and tasks: which count, and which do not."""

import base64
import json
import stat

import jwt
import pytest

from server.domain.errors import Unauthenticated
from server.domain.moment import SECOND
from server.signing import Audience, SigningKeys, parse
from tests.fakes.clock import HandClock

FIRST, SECOND_SECRET = "a" * 64, "b" * 64


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"one:{FIRST}\n")
    return file


@pytest.fixture
def keys(file, clock):
    keys = SigningKeys(file, clock)
    keys.open(make=False)
    return keys


def signed(keys, clock, audience=Audience.AGENT, seconds=60, **claims):
    return keys.sign(audience, "a1", clock.now() + seconds * SECOND, {"ns": "default", **claims})


def refused(keys, text, audience=Audience.AGENT):
    with pytest.raises(Unauthenticated):
        keys.verify(text, audience)


def test_a_key_comes_back_with_its_claims(keys, clock):
    claims = keys.verify(signed(keys, clock, cred="c"), Audience.AGENT)
    assert (claims["sub"], claims["ns"], claims["cred"]) == ("a1", "default", "c")


def test_a_key_counts_until_it_ends(keys, clock):
    text = signed(keys, clock, seconds=60)
    clock.advance(59_000)
    keys.verify(text, Audience.AGENT)
    clock.advance(1_000)
    refused(keys, text)


def test_an_agents_key_is_none_for_a_task(keys, clock):
    refused(keys, signed(keys, clock, Audience.TASK), Audience.AGENT)
    refused(keys, signed(keys, clock, Audience.AGENT), Audience.TASK)


def forged(clock, secret=FIRST, algorithm="HS256", headers=None, **changes):
    now = clock.now() // SECOND
    claims = {
        "iss": "muster", "aud": "muster-agent", "sub": "a1", "ns": "default",
        "iat": now, "exp": now + 60,
    }  # fmt: skip
    claims.update(changes)
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, secret, algorithm, headers=headers or {"kid": "one"})


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": SECOND_SECRET},
        {"algorithm": "HS512"},
        {"secret": None, "algorithm": "none"},
        {"headers": {"kid": "two"}},
        {"headers": {"kid": "../one"}},
        {"iss": "other"},
        {"aud": "muster-task"},
        {"aud": None},
        {"exp": None},
        {"exp": 1},
        {"sub": None},
        {"ns": None},
        {"ns": 7},
        {"exp": "never"},
    ],
)
def test_a_forged_key_does_not_count(keys, clock, changes):
    keys.verify(forged(clock), Audience.AGENT)  # what is not changed counts
    refused(keys, forged(clock, **changes))


def test_a_key_that_was_changed_does_not_count(keys, clock):
    head, body, signature = signed(keys, clock).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["sub"] = "another"
    other = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    refused(keys, f"{head}.{other}.{signature}")
    for text in ("..", "a.b.c", f"{head}..{signature}", "\x00.\x00.\x00", "é.é.é"):
        refused(keys, text)


def test_old_secrets_verify_until_their_line_is_removed(keys, file, clock):
    old = signed(keys, clock)
    file.write_text(f"two:{SECOND_SECRET}\none:{FIRST}\n")
    clock.advance(2_000)
    assert jwt.get_unverified_header(signed(keys, clock))["kid"] == "two"
    keys.verify(old, Audience.AGENT)
    file.write_text(f"two:{SECOND_SECRET}\n# gone\n")
    clock.advance(2_000)
    refused(keys, old)


def test_a_damaged_file_changes_nothing(keys, file, clock):
    text = signed(keys, clock)
    file.write_text("nonsense\n\n")
    clock.advance(2_000)
    keys.verify(text, Audience.AGENT)


def test_a_file_is_made_for_its_owner_alone(tmp_path, clock):
    first = SigningKeys(tmp_path / "new" / "keys", clock)
    first.open(make=True)
    assert stat.S_IMODE((tmp_path / "new" / "keys").stat().st_mode) == 0o600
    second = SigningKeys(tmp_path / "new" / "keys", clock)
    second.open(make=True)
    second.verify(signed(first, clock), Audience.AGENT)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line"),
        ("# only\n", "no line"),
        ("one", "line 1 should be KID:SECRET"),
        (f"o e:{FIRST}", "line 1 should be KID:SECRET"),
        ("one:short", "line 1: a secret has at least 32"),
        (f"one:{FIRST}\none:{FIRST}", "line 2: one is there twice"),
    ],
)
def test_what_a_file_must_hold(text, why):
    with pytest.raises(ValueError, match=why) as refused:
        parse(text)
    assert FIRST not in str(refused.value)
