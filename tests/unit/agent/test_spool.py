"""The files of one attempt's folder, however little or much a task left in it."""

import os

import pytest

from agent.spool import EXIT, SCRIPT, TASK, TEMPORARY, WORKSPACE, AttemptFolder


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
