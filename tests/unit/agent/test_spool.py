"""The files of one attempt's folder, however little or much a task left in it."""

import contextlib
import os
from pathlib import Path

import pytest

from agent.spool import EXIT, POSITION, SCRIPT, TASK, TEMPORARY, WORKSPACE, AttemptFolder


@pytest.fixture
def folder(tmp_path):
    """The folder of a task that has ended and left nothing."""
    path = tmp_path / "lease"
    for name in (WORKSPACE, TEMPORARY):
        (path / name).mkdir(parents=True)
    (path / SCRIPT).write_text("true\n")
    folder = AttemptFolder(path)
    folder.write(TASK, {"lease": "lease"})
    folder.write(EXIT, {"cause": "exited"})
    return folder


def test_what_is_added_is_read_with_the_rest(folder):
    folder.add(TASK, {"pid": 7})
    assert folder.read(TASK) == {"lease": "lease", "pid": 7}


def test_an_addition_that_was_cut_short_counts_for_nothing(folder):
    folder.add(TASK, {"pid": 7})
    path = folder.path / TASK
    path.write_bytes(path.read_bytes()[:-1])
    assert folder.read(TASK) == {"lease": "lease"}


@pytest.mark.parametrize("trap", [os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_nothing_is_added_to_what_a_task_put_there(folder, trap):
    (folder.path / TASK).unlink()
    trap(folder.path / TASK)
    with pytest.raises(OSError):  # noqa: PT011 - which one does not matter
        folder.add(TASK, {"pid": 7})


def test_a_plain_folder_goes_at_once(folder):
    assert folder.remove_plain()
    assert not folder.exists


def test_a_folder_with_files_of_the_task_is_nobodys_before_it_goes(folder):
    (folder.workspace / "file").touch()
    assert not folder.remove_plain()
    assert folder.read(TASK) is None
    folder.remove()
    assert not folder.exists


def test_a_link_in_the_folders_place_leads_nowhere(folder):
    link = AttemptFolder(folder.path.with_name("link"))
    link.path.symlink_to(folder.path)
    assert not link.remove_plain()
    assert folder.read(TASK) == {"lease": "lease"}


def wedges(path):
    """Returns what a task may put in a file's place, by name, as something to call."""
    return {
        "a link to itself": lambda: path.symlink_to(path.name),
        "a link to nothing": lambda: path.symlink_to("x"),
        "a pipe": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
        "no object": lambda: path.write_text("[1]"),
        "no text": lambda: path.write_bytes(b"\xff"),
        "too deep a list": lambda: path.write_text("[" * 200_000),
    }


@pytest.mark.parametrize("wedge", list(wedges(Path())))
def test_what_a_task_puts_in_a_files_place_is_no_json_and_no_output(folder, wedge):
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for name in (POSITION, "out-00000003.seg"):
        wedges(folder.path / name)[wedge]()
    assert folder.read(POSITION) is None
    assert folder.output(3, 0, 10) in (b"", b"[1]", b"\xff", b"[" * 10)
    assert folder.unread_bytes(3, 0) >= 0
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_a_folder_that_nobody_may_enter_is_empty(folder):
    with as_nobody(folder):
        assert folder.read(TASK) is None
        assert folder.segments() == []
        assert folder.output(0, 0, 10) == b""
        assert folder.unread_bytes(0, 0) == 0


@contextlib.contextmanager
def as_nobody(folder):
    folder.path.chmod(0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)
        folder.path.chmod(0o700)
