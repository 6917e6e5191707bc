"""Which names the globs of filters take."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.glob import selects


@pytest.mark.parametrize(
    ("glob", "taken", "left"),
    [
        ("main", ["main"], ["main2", "a/main", ""]),
        ("release-*", ["release-", "release-1.2"], ["release-1/2", "release"]),
        ("v?", ["v1", "vé", "v\n"], ["v", "v12", "v/"]),
        ("docs/**", ["docs/a", "docs/a/b"], ["docs", "a/docs/b"]),
        ("**/x.py", ["x.py", "a/x.py", "a/b/x.py"], ["ax.py"]),
        ("a.b(c)", ["a.b(c)"], ["axb(c)"]),
        ("ä\\*", ["ä\\", "ä\\b"], ["ä"]),
        ("*", ["\ud800"], ["a/b"]),
    ],
)
def test_a_glob_takes_names(glob, taken, left):
    assert [name for name in taken + left if selects([glob], name)] == taken


@pytest.mark.parametrize(
    "glob", ["*a" * 99 + "*b", "**a" * 99 + "b", "**/" * 50 + "*a" * 50 + "b", "**/*b"]
)
def test_no_glob_takes_long(glob):
    begun = time.process_time()
    assert not selects([glob], "a" * 1000)
    assert not selects([glob], "a/" * 500)
    assert time.process_time() - begun < 3


@given(st.text("ab/*?", max_size=8), st.text("ab/", max_size=8))
@settings(max_examples=2000)
def test_a_glob_takes_what_trying_every_way_says(glob, name):
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    every_way = re.sub(r"\*\*/|\*\*|\*|\?", lambda found: meanings[found[0]], glob)
    assert selects([glob], name) == bool(re.fullmatch(every_way, name))


@given(st.text(), st.text())
def test_any_text_is_a_glob(glob, name):
    assert selects(["**"], name)
    selects([glob], name)
