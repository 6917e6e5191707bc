"""A folder serves another attempt only when its task left it as it was."""

import os
import shutil

import pytest

from agent.spool import END_ACKNOWLEDGED, EXIT, POSITION, SCRIPT, TASK, TEMPORARY, Spool
from agent.supervisor.folders import Folders


@pytest.fixture
def spool(tmp_path):
    """The spool of an agent that has just begun."""
    spool = Spool(tmp_path)
    spool.create()
    return spool


@pytest.fixture
def folders(spool, tmp_path):
    """The folders of that agent."""
    return Folders(spool, tmp_path / "spare")


@pytest.fixture
def begin(spool, folders):
    """Makes the folder of a lease and returns it with what tells its workspace from others."""

    def begin(lease, script=b"true\n"):
        folder = spool.folder(lease)
        folders.begin(folder, {"lease": lease}, script)
        return folder, folder.workspace.stat().st_ino

    return begin


def finish(folder):
    folder.add(TASK, {"pid": 7})
    folder.write(EXIT, {"cause": "exited", "message": folder.path.name})


def test_a_folder_that_was_left_as_it_was_serves_again(folders, begin):
    for number in range(3):
        first, workspace = begin(f"first-{number}", b"a longer script\n" * 50)
        finish(first)
        assert folders.end(first)
        assert not first.exists
        second, again = begin(f"second-{number}")
        assert again == workspace
        assert second.read(TASK) == {"lease": f"second-{number}"}
        assert second.read(EXIT) is None
        assert (second.path / SCRIPT).read_bytes() == b"true\n"
        finish(second)
        assert second.read(EXIT) == {"cause": "exited", "message": f"second-{number}"}
        assert folders.end(second)


def test_what_the_last_task_printed_is_not_there_any_more(folders, begin):
    first, workspace = begin("first")
    first.segment(0).write_bytes(b"output")
    first.write(END_ACKNOWLEDGED, {})
    finish(first)
    assert folders.end(first)
    second, again = begin("second")
    assert again == workspace
    assert second.unread_bytes(0, 0) == 0
    assert second.read(END_ACKNOWLEDGED) is None


TOUCHES = {
    "a file": lambda folder: (folder.workspace / "file").touch(),
    "a file that is gone again": lambda folder: come_and_go(folder.workspace / "file"),
    "a temporary file": lambda folder: (folder.path / TEMPORARY / "file").touch(),
    "a mode": lambda folder: folder.workspace.chmod(0o755),
    "a mode that is back again": lambda folder: (
        folder.workspace.chmod(0o755),
        folder.workspace.chmod(0o700),
    ),
    "the folder's mode": lambda folder: folder.path.chmod(0o755),
    "another workspace": lambda folder: replace(folder.workspace),
    "another file": lambda folder: (folder.path / "file").touch(),
    "a link to the script": lambda folder: os.link(folder.path / SCRIPT, folder.path / "link"),
    "another end": lambda folder: (
        shutil.copy(folder.path / EXIT, folder.path / "end")
        and (folder.path / "end").replace(folder.path / EXIT)
    ),
    "a place saved": lambda folder: folder.write(POSITION, {}),
    "no room for an end": lambda folder: os.truncate(folder.path / EXIT, 10),
}


def come_and_go(path):
    path.touch()
    path.unlink()


def replace(path):
    path.rename(path.with_name("old"))
    path.mkdir(mode=0o700)
    path.with_name("old").rmdir()


def until_the_clock_goes_on(folder):
    """Waits until a change of the folder gets another time than its making had."""
    probe = folder.path.parent.parent / "probe"
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > folder.workspace.stat().st_ctime_ns:
            return


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_a_folder_that_was_touched_does_not(folders, begin, tmp_path, touch):
    first, _ = begin("first")
    until_the_clock_goes_on(first)
    finish(first)
    touch(first)
    if not folders.end(first):
        first.remove()
    assert list((tmp_path / "spare").iterdir()) == []


def test_a_folder_put_elsewhere_does_not(folders, begin):
    first, _ = begin("first")
    finish(first)
    first.path.rename(first.path.with_name("moved"))
    first.path.symlink_to("moved")
    assert not folders.end(first)


def test_other_hands_may_delete_what_is_kept(folders, begin, tmp_path):
    first, _ = begin("first")
    finish(first)
    assert folders.end(first)
    shutil.rmtree(tmp_path / "spare")
    shutil.rmtree(tmp_path / "spool")
    second, _ = begin("second")
    assert second.read(TASK) == {"lease": "second"}


def test_nothing_is_kept_beyond_the_end(folders, begin, tmp_path):
    first, _ = begin("first")
    finish(first)
    assert folders.end(first)
    folders.clear()
    assert not (tmp_path / "spare").exists()
    begin("second")


def test_what_cannot_be_made_leaves_nothing(folders, begin, spool, tmp_path):
    spool.path.rmdir()
    spool.path.write_text("in the way")
    with pytest.raises(OSError):  # noqa: PT011 - which one does not matter
        begin("first")
    assert list(tmp_path.glob("spare/*")) == []
