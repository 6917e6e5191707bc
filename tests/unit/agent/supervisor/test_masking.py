"""Secrets are hidden before they reach the disk, however they were read."""

import base64
import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent.supervisor.masking import Mask

VALUE = 'sw"ordfish/9'


def shown(secrets, pieces):
    mask = Mask(secrets)
    return b"".join([mask.feed(1, piece) for piece in pieces]) + mask.rest(1)


@given(
    st.lists(st.sampled_from([VALUE.encode(), b"sword", b"\n", b"fish", b"***"])).map(b"".join),
    st.lists(st.integers(min_value=0)),
)
def test_read_borders_do_not_matter(text, borders):
    places = [0, *sorted({border % (len(text) + 1) for border in borders}), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    assert shown([VALUE], pieces) == text.replace(VALUE.encode(), b"***")


def test_encoded_forms_are_hidden_too():
    encoded = base64.b64encode(VALUE.encode()).rstrip(b"=")
    text = b'%s sw%%22ordfish%%2F9 sw\\"ordfish/9 end' % encoded
    assert shown([VALUE], [text]) == b"*** *** *** end"


def test_a_secret_of_several_lines_is_hidden_line_by_line():
    assert shown(["first line\nsecond line"], [b"x first line\nsecond line y"]) == b"x ***\n*** y"


def test_a_line_end_lets_everything_before_it_go():
    mask = Mask(["a long secret value"])
    assert mask.feed(1, b"short\nrest") == b"short\n"
    assert mask.feed(2, b"other stream\n") == b"other stream\n"
    assert mask.rest(1) == b"rest"


def test_short_values_are_left_alone():
    assert shown(["abc"], [b"abc"]) == b"abc"
