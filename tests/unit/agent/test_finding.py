"""Which files a glob means."""

import os
import re
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
