"""Archives of a workspace's files."""

import hashlib
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest

from agent.artifacts.packing import PackingStoppedError, pack
from tests.unit.agent.test_finding import FILES, workspace

__all__ = ["workspace"]


def packed(workspace, *patterns, dot_files=True):
    target = io.BytesIO()
    count, left_out = pack(workspace, patterns, target, threading.Event(), dot_files=dot_files)
    target.seek(0)
    with tarfile.open(fileobj=target) as archive:
        found = {each.name: archive.extractfile(each).read().decode() for each in archive}
    assert len(found) == count
    return found, left_out, hashlib.sha256(target.getvalue()).hexdigest()


def test_it_holds_what_the_patterns_mean(workspace):
    assert packed(workspace, "**")[0] == {name: name for name in FILES}
    assert set(packed(workspace, "out/deep", "*.txt")[0]) == {
        "a.txt",
        "out/deep/y.txt",
        "out/deep/z.log",
    }


def test_dot_files_are_left_out_wherever_they_lie(workspace):
    for name in ("out/.cache/x", ".git/config"):
        (workspace / name).parent.mkdir()
        (workspace / name).touch()
    assert {".hidden", "out/.cache/x", ".git/config"} <= set(packed(workspace, "**")[0])
    visible = set(packed(workspace, "**", dot_files=False)[0])
    assert visible == set(FILES) - {".hidden"}


def test_the_same_files_are_the_same_bytes(workspace, monkeypatch):
    first = packed(workspace, "**")[2]
    os.utime(workspace)
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert packed(workspace, "**")[2] == first
    (workspace / "a.txt").write_text("other")
    assert packed(workspace, "**")[2] != first


def test_no_link_is_followed(workspace, tmp_path):
    (tmp_path / "secret").write_text("s")
    (workspace / "link").symlink_to(tmp_path / "secret")
    (workspace / "folder").symlink_to(tmp_path)
    found, left_out, _ = packed(workspace, "**")
    assert set(found) == set(FILES)
    assert left_out == ["folder", "link"]


def test_it_ends_when_nobody_wants_it(workspace):
    stop = threading.Event()
    stop.set()
    with pytest.raises(PackingStoppedError):
        pack(workspace, ["**"], io.BytesIO(), stop)


def test_a_full_disk_is_told(workspace):
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(OSError, match="No space"),
    ):
        pack(workspace, ["**"], full, threading.Event())
