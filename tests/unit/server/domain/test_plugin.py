"""Which version of a plugin a word means."""

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from server.domain.errors import AlreadyExists, NotFound
from server.domain.plugin import (
    PublishedPlugin,
    Reference,
    pick,
    rank,
    why_none,
)
from server.domain.publishing import PublishPlugin, YankPlugin
from tests.fakes.core import NAMESPACE


def plugin(version, *, id_="p", sha256="", yanked="", bundled=False):
    sha256 = sha256 or version.encode().hex().ljust(64, "0")[:64]
    return PublishedPlugin(
        *(0, NAMESPACE, id_, version, "step", "simple", sha256, 1, {}, "", "", 0, "olga"),
        yanked=yanked,
        bundled=bundled,
    )


KNOWN = [
    plugin("1.0.0"),
    plugin("1.2.0"),
    plugin("1.10.0"),
    plugin("1.11.0", yanked="bad"),
    plugin("2.0.0-rc.1"),
    plugin("0.9.0", bundled=True),
    plugin("9.0.0", id_="other"),
]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("p", "1.10.0"),
        ("p@1", "1.10.0"),
        ("p@1.2", "1.2.0"),
        ("p@1.1", None),
        ("p@1.2.0", "1.2.0"),
        ("p@1.11.0", None),
        (f"p@sha256:{plugin('1.11.0').sha256}", "1.11.0"),
        ("p@2", None),
        ("p@2.0.0-rc.1", "2.0.0-rc.1"),
        ("p@0", "0.9.0"),
        ("q", None),
    ],
)
def test_a_word_means_one_version(text, version):
    wanted = Reference.parse(text)
    found = pick(wanted, KNOWN)
    assert (found and found.version) == version
    if found is None:
        assert text in why_none(wanted, text, KNOWN)


@pytest.mark.parametrize(
    "text", ["", "P", "p@", "p@x", "p@1.2.3.4", "-p", "p-", "p@sha256:12", "a b"]
)
def test_what_is_no_reference(text):
    assert Reference.parse(text) is None


PARTS = st.from_regex(r"(0|[1-9][0-9]{0,3}|[a-z][a-z0-9]{0,3})", fullmatch=True)
NUMBERS = st.tuples(*[st.integers(0, 30)] * 3).map(lambda n: ".".join(map(str, n)))
VERSIONS = st.builds(
    lambda number, before: number + (f"-{'.'.join(before)}" if before else ""),
    NUMBERS,
    st.lists(PARTS, max_size=3),
)


@given(VERSIONS, VERSIONS)
def test_versions_are_in_the_order_that_semver_says(one, other):
    expected = semver.Version.parse(one).compare(other)
    found = (rank(one) > rank(other)) - (rank(one) < rank(other))
    assert found == expected


def test_a_version_never_changes(core):
    made, there = core.do(PublishPlugin(NAMESPACE, plugin("1.0.0")))
    assert (made.published_at, there) == (core.clock.now(), False)
    assert core.do(PublishPlugin(NAMESPACE, plugin("1.0.0")))[1]
    with pytest.raises(AlreadyExists):
        core.do(PublishPlugin(NAMESPACE, plugin("1.0.0", sha256="f" * 64)))


def test_a_version_is_taken_back_and_given_out_again(core):
    core.do(PublishPlugin(NAMESPACE, plugin("1.0.0")))
    assert core.do(YankPlugin(NAMESPACE, "p", "1.0.0", "bad")).yanked == "bad"
    assert core.do(YankPlugin(NAMESPACE, "p", "1.0.0", "")).yanked == ""
    for namespace, version in ((NAMESPACE, "2.0.0"), ("other", "1.0.0")):
        with pytest.raises(NotFound):
            core.do(YankPlugin(namespace, "p", version, "bad"))
