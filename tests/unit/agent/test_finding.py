"""Which files a glob means."""

import os
import re
import time
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.artifacts import finding
from agent.artifacts.finding import TooManyFilesError, find, open_inside

FILES = ("a.txt", "b.log", ".hidden", "out/x.txt", "out/deep/y.txt", "out/deep/z.log", "p q/r.txt")


@pytest.fixture
def workspace(tmp_path):
    for name in FILES:
        path = tmp_path / "w" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "w"


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("a.txt", ["a.txt"]),
        ("./a.txt", ["a.txt"]),
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "out/deep/y.txt", "out/x.txt", "p q/r.txt"]),
        ("out", ["out/deep/y.txt", "out/deep/z.log", "out/x.txt"]),
        ("out/", ["out/deep/y.txt", "out/deep/z.log", "out/x.txt"]),
        ("out/*", ["out/deep/y.txt", "out/deep/z.log", "out/x.txt"]),
        ("out/*.txt", ["out/x.txt"]),
        ("out/**", ["out/deep/y.txt", "out/deep/z.log", "out/x.txt"]),
        ("**/deep", ["out/deep/y.txt", "out/deep/z.log"]),
        ("?.log", ["b.log"]),
        ("*", sorted(FILES)),
        (".", []),
        ("../w/a.txt", []),
        ("nothing", []),
        ("a.txt/b", []),
    ],
)
def test_a_pattern_means_files(workspace, pattern, files):
    assert [found.path for found in find(workspace, pattern).files] == files


def test_links_lead_nowhere(workspace, tmp_path):
    (tmp_path / "secret").write_text("s")
    (workspace / "out/link").symlink_to(tmp_path / "secret")
    (workspace / "folder").symlink_to(tmp_path)
    os.mkfifo(workspace / "pipe")
    findings = find(workspace, "**")
    assert "out/link" in findings.left_out
    assert {"folder", "pipe"} <= set(findings.left_out)
    assert not [found for found in findings.files if "secret" in found.path]
    for path in ("out/link", "folder/secret", "pipe"):
        with pytest.raises(OSError):  # noqa: PT011 (which one is the system's affair)
            os.close(open_inside(workspace, path))
    (workspace / "out").rename(workspace / "old")
    (workspace / "out").symlink_to(tmp_path)
    with pytest.raises(OSError):  # noqa: PT011 (which one is the system's affair)
        open_inside(workspace, "out/secret")


def test_there_are_not_too_many(workspace, monkeypatch):
    monkeypatch.setattr(finding, "MOST_FILES", 3)
    with pytest.raises(TooManyFilesError, match="more than 3 files"):
        find(workspace, "**")


PATTERNS = st.lists(
    st.sampled_from(["*", "**", "?", "a*", "*.txt", "out", "deep", "x.txt"]), min_size=1, max_size=4
).map("/".join)


@settings(max_examples=150, deadline=None)
@given(PATTERNS)
def test_it_agrees_with_a_simple_reading(pattern):
    """A path is meant when it, or a folder above it, fits the pattern word by word."""

    def fits(path, parts):
        if not parts:
            return not path
        if parts[0] == "**" and len(parts) == 1:
            return bool(path)
        if parts[0] == "**":
            return fits(path, parts[1:]) or (bool(path) and fits(path[1:], parts))
        name = re.escape(parts[0]).replace(r"\*", ".*").replace(r"\?", ".")
        return bool(path) and bool(re.fullmatch(name, path[0])) and fits(path[1:], parts[1:])

    parts = pattern.split("/")
    expected = [
        name
        for name in sorted(FILES)
        if any(fits(name.split("/")[:n], parts) for n in range(1, name.count("/") + 2))
    ]
    folder = WORKSPACE
    assert [found.path for found in find(folder, pattern).files] == expected


@pytest.fixture(scope="module", autouse=True)
def _shared(tmp_path_factory):
    global WORKSPACE
    WORKSPACE = tmp_path_factory.mktemp("shared")
    for name in FILES:
        path = WORKSPACE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


WORKSPACE = Path()


@pytest.mark.parametrize(
    "pattern", ["*a" * 12 + "*b", "**/" * 12 + "a" * 60 + "x", "**/a*/" * 12 + "b"]
)
@pytest.mark.parametrize("dot_files", [True, False])
def test_no_pattern_takes_long(tmp_path, pattern, dot_files):
    deep = tmp_path.joinpath(*["a" * 60] * 20)
    deep.mkdir(parents=True)
    for folder in (tmp_path, deep):
        (folder / ("a" * 61)).touch()
    begun = time.process_time()
    assert find(tmp_path, pattern, dot_files=dot_files).files == []
    assert time.process_time() - begun < 1


@given(
    pattern=st.text("ab*?/", min_size=1, max_size=10),
    paths=st.lists(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)),
)
@settings(deadline=None, max_examples=200)
def test_a_pattern_means_what_trying_every_way_says(tmp_path_factory, pattern, paths):
    workspace = tmp_path_factory.mktemp("w", numbered=True)
    for path in paths:
        with suppress(OSError):  # a file lies where a folder should, or the other way round
            workspace.joinpath(*path[:-1]).mkdir(parents=True, exist_ok=True)
            workspace.joinpath(*path).touch()
    there = sorted(
        str(path.relative_to(workspace)) for path in workspace.rglob("*") if path.is_file()
    )
    parts = [part for part in pattern.split("/") if part]
    meant = [
        path
        for path in there
        if any(
            means(parts, names[:count])
            for names in [path.split("/")]
            for count in range(1, len(names) + 1)
        )
    ]
    assert [found.path for found in find(workspace, pattern).files] == meant


def means(parts, names):
    """Tell by trying every way whether a pattern's parts mean exactly the path of these names."""
    if not parts:
        return not names
    if parts[0] == "**":
        least = 0 if set(parts) != {"**"} and parts[1:] else 1
        return any(means(parts[1:], names[count:]) for count in range(least, len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and means(parts[1:], names[1:])
