"""What a task did to its own folder does not keep the next supervisor from its work."""

import json

import pytest

from agent.spool import EXIT, TASK, Spool
from agent.supervisor.recovery import LOST, recover

SOUND = {
    "lease": "spoilt",
    "task": "a task that nothing else bears",
    "attempt": 1,
    "kill_grace": 0.0,
    "stop_with_lease": False,
}
END = {
    "cause": "exited",
    "exit_code": 3,
    "message": "",
    "failure": "task",
    "started_at": 1,
    "ended_at": 2,
}


@pytest.fixture
def spool(tmp_path):
    """A spool with a task that was left alone, and one that may be spoilt."""
    spool = Spool(tmp_path)
    for lease in ("sound", "spoilt"):
        path = spool.folder(lease).path
        path.mkdir(parents=True)
        (path / TASK).write_text(json.dumps(SOUND | {"lease": lease}))
        (path / EXIT).write_text(json.dumps(END))
    return spool


def put(path, what):
    path.unlink()
    if what == "a link":
        path.symlink_to("x")
    elif what == "a folder":
        path.mkdir()
    else:
        path.write_text(json.dumps(what))


def test_ends_that_were_written_are_told(spool):
    assert {lease: state["end"] for lease, state in recover(spool).items()} == {
        "sound": END,
        "spoilt": END,
    }


SPOILT_TASKS = [
    "a link",
    "a folder",
    {"a": 1},
    SOUND | {"lease": "sound"},
    SOUND | {"kill_grace": "x"},
    SOUND | {"attempt": 1 << 40},
    SOUND | {"task": "\ud800"},
    SOUND | {"pid": 7, "start": "x"},
]


@pytest.mark.parametrize("what", SPOILT_TASKS, ids=str)
def test_a_folder_that_does_not_say_whose_it_is_goes(spool, what):
    put(spool.folder("spoilt").path / TASK, what)
    assert recover(spool).keys() == {"sound"}
    assert not spool.folder("spoilt").exists


SPOILT_ENDS = [
    "a link",
    "a folder",
    {"a": 1},
    END | {"exit_code": "x"},
    END | {"exit_code": 1 << 40},
    END | {"ended_at": -1},
    END | {"message": "\ud800"},
]


@pytest.mark.parametrize("what", SPOILT_ENDS, ids=str)
def test_an_end_that_says_nothing_is_none(spool, what):
    put(spool.folder("spoilt").path / EXIT, what)
    states = recover(spool)
    assert states["sound"]["end"] == END
    assert (states["spoilt"]["end"]["cause"], states["spoilt"]["end"]["message"]) == ("lost", LOST)
