"""A folder serves another attempt only when its task left it as it was."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from agent.spool import (
    END_ACKNOWLEDGED,
    EXIT,
    POSITION,
    SCRIPT,
    TASK,
    TEMPORARY,
    WORKSPACE,
    Spool,
)
from agent.supervisor.folders import Folders


@pytest.fixture
def spool(tmp_path):
    """The spool of an agent that has just begun."""
    spool = Spool(tmp_path)
    spool.create()
    return spool


@pytest.fixture
def folders(spool):
    """The folders of that agent."""
    return Folders(spool)


@pytest.fixture
def begin(spool, folders):
    """Makes the folder of a lease and returns it with what tells it from others."""

    def begin(lease, script=b"true\n"):
        folder = spool.folder(lease)
        folders.begin(folder, {"lease": lease}, script)
        return folder, folder.path.stat().st_ino

    return begin


def finish(folder):
    folder.add(TASK, {"pid": 7})
    folder.write(EXIT, {"cause": "exited", "message": folder.path.name})


def test_a_folder_that_was_left_as_it_was_serves_again(folders, begin):
    for number in range(3):
        first, made = begin(f"first-{number}", b"a longer script\n" * 50)
        finish(first)
        assert folders.end(first)
        assert not first.exists
        second, again = begin(f"second-{number}")
        assert again == made
        assert second.read(TASK) == {"lease": f"second-{number}"}
        assert second.read(EXIT) is None
        assert (second.path / SCRIPT).read_bytes() == b"true\n"
        finish(second)
        assert second.read(EXIT) == {"cause": "exited", "message": f"second-{number}"}
        assert folders.end(second)


def test_what_the_last_task_printed_is_not_there_any_more(folders, begin):
    first, made = begin("first")
    first.segment(0).write_bytes(b"output")
    first.write(END_ACKNOWLEDGED, {})
    finish(first)
    assert folders.end(first)
    second, again = begin("second")
    assert again == made
    assert second.unread_bytes(0, 0) == 0
    assert second.read(END_ACKNOWLEDGED) is None


TOUCHES = {
    "a file": lambda folder: (folder.workspace / "file").touch(),
    "a temporary file": lambda folder: (folder.path / TEMPORARY / "file").touch(),
    "the folder's mode": lambda folder: folder.path.chmod(0o755),
    "no workspace": lambda folder: folder.workspace.rmdir(),
    "a link for a workspace": lambda folder: (
        folder.workspace.rmdir(),
        folder.workspace.symlink_to(TEMPORARY),
    ),
    "another file": lambda folder: (folder.path / "file").touch(),
    "a link to the script": lambda folder: os.link(folder.path / SCRIPT, folder.path / "link"),
    "another end": lambda folder: (
        shutil.copy(folder.path / EXIT, folder.path / "end")
        and (folder.path / "end").replace(folder.path / EXIT)
    ),
    "a place saved": lambda folder: folder.write(POSITION, {}),
    "a mark on the folder": lambda folder: mark(folder.path),
    "no room for an end": lambda folder: os.truncate(folder.path / EXIT, 10),
}


def mark(path):
    try:
        os.setxattr(path, "user.mark", b"first")
    except OSError:
        pytest.skip("there are no extended attributes here")


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_a_folder_that_was_touched_does_not(folders, begin, spool, touch):
    first, _ = begin("first")
    finish(first)
    touch(first)
    if not folders.end(first):
        first.remove()
    assert list(spool.shelf.iterdir()) == []


def test_nothing_of_the_last_task_rests_in_what_is_kept(folders, begin, spool):
    first, _ = begin("first-lease", b"echo first-lease\n")
    finish(first)
    first.segment(0).write_bytes(b"first-lease")
    blocks = (first.path / EXIT).stat().st_blocks
    assert folders.end(first)
    kept = [path for path in spool.shelf.rglob("*") if path.is_file()]
    assert kept
    assert not any(b"first-lease" in path.read_bytes() for path in kept)
    assert [path.stat().st_blocks for path in kept if path.name == EXIT] == [blocks]


@pytest.mark.parametrize("name", [WORKSPACE, TEMPORARY])
def test_who_holds_an_earlier_tasks_directory_does_not_reach_the_next_ones(folders, begin, name):
    first, made = begin("first")
    held = os.open(first.path / name, os.O_RDONLY)
    finish(first)
    assert folders.end(first)
    second, again = begin("second")
    assert again == made
    with pytest.raises(FileNotFoundError):
        os.mkdir("intruder", dir_fd=held)
    assert list((second.path / name).iterdir()) == []
    os.close(held)


def test_what_was_done_to_a_tasks_own_directories_does_not_pass_on(folders, begin):
    first, made = begin("first")
    first.workspace.chmod(0o755)
    (first.path / TEMPORARY).chmod(0o500)
    finish(first)
    assert folders.end(first)
    second, again = begin("second")
    assert again == made
    assert {(second.path / name).stat().st_mode & 0o777 for name in (WORKSPACE, TEMPORARY)} == {
        0o700
    }


@pytest.mark.parametrize("name", [WORKSPACE, TEMPORARY])
def test_a_mount_over_a_tasks_directory_does_not_pass_on(folders, begin, spool, name):
    first, _ = begin("first")
    directory = first.path / name
    if subprocess.run(["mount", "--bind", directory, directory], check=False).returncode:  # noqa: S603, S607
        pytest.skip("this user may not mount")
    try:
        finish(first)
        assert not folders.end(first)
        assert list(spool.shelf.iterdir()) == []
    finally:
        subprocess.run(["umount", directory], check=True)  # noqa: S603, S607


def test_a_folder_whose_task_may_still_live_does_not_serve_again(folders, begin, spool):
    first, _ = begin("first")
    finish(first)
    assert folders.end(first, again=False)
    assert not first.exists
    assert list(spool.shelf.iterdir()) == []


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
    shutil.rmtree(tmp_path / "spool")
    second, _ = begin("second")
    assert second.read(TASK) == {"lease": "second"}


def test_nothing_is_kept_beyond_the_end(folders, begin, spool):
    first, _ = begin("first")
    finish(first)
    assert folders.end(first)
    folders.clear()
    assert not spool.shelf.exists()
    begin("second")


def test_what_could_not_be_deleted_is_stepped_over(folders, begin, spool):
    for name in ("0", "1"):
        (spool.shelf / name / "mount").mkdir(parents=True)
    first, _ = begin("first")
    assert first.read(TASK) == {"lease": "first"}
    assert [path.name for path in sorted(spool.shelf.rglob("*"))] == ["0", "mount", "1", "mount"]


def test_what_cannot_be_made_leaves_nothing(folders, begin, spool, tmp_path):
    spool.path.rmdir()
    spool.path.write_text("in the way")
    with pytest.raises(OSError):  # noqa: PT011 - which one does not matter
        begin("first")
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_the_spool_may_be_a_volume_of_its_own(tmp_path, elsewhere):
    (tmp_path / "spool").symlink_to(elsewhere)
    spool = Spool(tmp_path)
    folders = Folders(spool)
    for lease in ("first", "second"):
        folder = spool.folder(lease)
        folders.begin(folder, {"lease": lease}, b"true\n")
        assert [folder.where for folder in spool.folders()] == [folder.where]
        finish(folder)
        assert folders.end(folder)


@pytest.fixture
def elsewhere(tmp_path):
    """A directory on another volume."""
    memory = Path("/dev/shm")  # noqa: S108 - where Linux has a volume of its own
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one volume only")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)
