"""Secrets are hidden before they reach the disk, however they were read."""

import base64
import itertools
import json
import re
import urllib.parse

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.supervisor.masking import Mask, _forms

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


SECRETS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=120)
    | st.text('ab/+ %"\\\n?&=é', min_size=4, max_size=100),
    min_size=1,
    max_size=4,
)


def spelled(secret):
    """Returns a secret in the ways programs print it."""
    raw = secret.encode()
    in_lines = base64.encodebytes(raw)
    url = urllib.parse.quote(secret, safe="")
    return [
        raw,
        base64.b64encode(raw),
        base64.b64encode(raw + b"\n"),
        base64.urlsafe_b64encode(raw),
        in_lines,
        url.encode(),
        urllib.parse.quote(secret).encode(),
        urllib.parse.quote_plus(secret).encode(),
        re.sub("%..", lambda found: found[0].lower(), url).encode(),
        json.dumps({"it": secret}).encode(),
        json.dumps(secret, ensure_ascii=False).replace("/", "\\/").encode(),
    ]


@settings(deadline=None)
@given(SECRETS, st.data())
def test_no_spelling_of_a_secret_leaves_wherever_reads_cut_it(secrets, data):
    ways = st.sampled_from([way for secret in secrets for way in spelled(secret)])
    filler = st.binary(max_size=12)
    text = b"".join(data.draw(st.lists(ways | filler, max_size=8)))
    borders = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *borders, len(text)])]
    mask = Mask(secrets)
    shown = b"".join(mask.feed(1, piece) for piece in pieces) + mask.rest(1)
    assert shown == mask_whole(secrets, text)  # borders change nothing
    for form in _forms(secrets):
        assert b"*" in form or form not in shown


def mask_whole(secrets, text):
    mask = Mask(secrets)
    return mask.feed(1, text) + mask.rest(1)


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0), max_size=5))
def test_what_holds_no_secret_is_shown_as_it_is(text, borders):
    places = sorted({0, len(text), *(border % (len(text) + 1) for border in borders)})
    mask = Mask(["a secret that nobody prints by chance"])
    shown = b"".join(mask.feed(1, text[a:b]) for a, b in itertools.pairwise(places))
    assert shown + mask.rest(1) == text


@settings(deadline=None)
@given(SECRETS, st.data())
def test_of_forms_that_overlap_the_longest_at_the_first_place_is_hidden(secrets, data):
    forms = sorted(_forms(secrets), key=len, reverse=True)
    text = b"".join(data.draw(st.lists(st.sampled_from([*forms, b"ab", b"\n"]), max_size=12)))
    every_form = re.compile(b"|".join(map(re.escape, forms)) or b"(?!)")
    assert mask_whole(secrets, text) == every_form.sub(b"***", text)
