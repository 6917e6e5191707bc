"""A token's text: its form, its checksum and when it counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.token import SECRET_LETTERS, TokenKind, digest_of, kind_of, write
from tests.records import token

MOST = 62**SECRET_LETTERS - 1
KINDS = st.sampled_from(TokenKind)
NUMBERS = st.integers(0, MOST)


@given(KINDS, NUMBERS)
def test_a_token_says_what_it_is(kind, number):
    text = write(kind, number)
    assert kind_of(text) is kind
    assert text.startswith(f"muster_{kind.value}_")


@given(KINDS, NUMBERS, st.data())
def test_one_wrong_letter_makes_it_none(kind, number, data):
    text = write(kind, number)
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("Az09_é").filter(lambda letter: letter != text[place]))
    assert kind_of(text[:place] + letter + text[place + 1 :]) is None


@given(st.text())
def test_any_other_text_is_none(text):
    assert kind_of(text) is None


def test_different_numbers_make_different_tokens():
    first, last = write(TokenKind.USER, 0), write(TokenKind.USER, MOST)
    assert len({first, last, digest_of(first), digest_of(last)}) == 4
    assert len(first) == len(last)


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({}, True),
        ({"revoked_at": 5}, False),
        ({"expires_at": 11}, True),
        ({"expires_at": 10}, False),
        ({"uses_left": 1}, True),
        ({"uses_left": 0}, False),
    ],
)
def test_a_token_counts_until_something_ends_it(fields, counts):
    assert token(1, **fields).counts(10) is counts
