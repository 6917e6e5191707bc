"""What a task prints is taken in turns, and its end is told whatever its disk says."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from agent.spool import Spool
from agent.supervisor.limits import Limits
from agent.supervisor.loop import Loop
from agent.supervisor.masking import Mask
from agent.supervisor.output import OutputWriter, Pump


@pytest.fixture
def folder(tmp_path):
    """The folder of an attempt."""
    spool = Spool(tmp_path)
    folder = spool.folder("lease")
    folder.path.mkdir(parents=True)
    return folder


@pytest.fixture
def writer(folder):
    """What writes into it, in small segments."""
    return OutputWriter(folder, Limits(segment_bytes=1024, spare_disk=0), lambda: None)


@pytest.fixture
def failing_close(monkeypatch):
    """A disk that tells only at the end that it did not take everything."""
    close = os.close

    def fail(file):
        close(file)
        raise OSError(errno.EIO, "not everything was taken")

    def begin():
        monkeypatch.setattr(os, "close", fail)

    yield begin
    monkeypatch.undo()


def test_a_segment_that_cannot_be_closed_is_output_lost_and_no_more(
    writer, failing_close, monkeypatch
):
    writer.append(1, b"x" * 2000)
    failing_close()
    writer.close()
    monkeypatch.undo()
    assert writer.dropped


def test_nothing_is_written_to_a_number_that_was_closed(
    writer, failing_close, monkeypatch, tmp_path
):
    writer.append(1, b"x" * 2000)
    failing_close()
    writer.append(1, b"the next segment")
    monkeypatch.undo()
    others = [(tmp_path / f"other-{number}").open("wb") for number in range(3)]
    writer.append(1, b"more")
    writer.close()
    for other in others:
        other.close()  # it is still this file's own number
        assert not (tmp_path / other.name).read_bytes()


def test_the_end_is_told_though_the_last_segment_cannot_be_closed(writer, failing_close):
    loop = Loop()
    reader, end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    pump = Pump(loop, {1: reader}, writer, Mask([]))
    loop.at("limit", time.monotonic() + 20, loop.end)
    writer.append(1, b"some output")
    os.close(end)
    ends = []
    file = writer._file
    os.close(file)  # as good as one that cannot be closed
    pump.finish(5.0, lambda: ends.append("end"))
    assert ends == ["end"]


def full_pipe(size):
    """Returns a pipe that holds so many bytes, both ends."""
    reader, end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, size)
    os.write(end, b"x" * size)
    return reader, end


@pytest.mark.parametrize("secrets", [[], ["a secret"]])
@pytest.mark.parametrize("survivor", [False, True])
def test_others_have_their_turn_while_full_pipes_are_emptied(folder, secrets, survivor):
    size = 1024 * 1024
    writer = OutputWriter(folder, Limits(spare_disk=0), lambda: None)
    loop = Loop()
    reader, end = full_pipe(size)
    other, others_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(others_end, b"!")
    turns = []

    def ended():
        turns.append("end")
        loop.end()

    loop.watch(other, lambda: turns.append("other"))
    loop.at("limit", time.monotonic() + 20, loop.end)
    pump = Pump(loop, {1: reader}, writer, Mask(secrets))
    if survivor:  # which holds the pipe open for ever
        loop.at("finish", time.monotonic(), lambda: pump.finish(0.0, ended))
    else:
        os.close(end)
        pump.finish(10.0, ended)
    loop.run()
    assert turns.count("other") > 2
    assert turns[-1] == "end"
    assert folder.unread_bytes(0, 0) > size
    for descriptor in (other, others_end, *([end] if survivor else [])):
        os.close(descriptor)


def test_less_is_read_at_a_time_where_secrets_are_looked_for(folder):
    writer = OutputWriter(folder, Limits(spare_disk=0), lambda: None)
    loop = Loop()
    reader, end = full_pipe(64 * 1024)
    pump = Pump(loop, {1: reader}, writer, Mask(["a secret"]))
    pump._ready(1)
    assert 0 < folder.unread_bytes(0, 0) < 20 * 1024
    os.close(end)
    os.close(reader)


def test_room_is_looked_for_where_the_segment_is_and_not_by_its_folders_name(folder, monkeypatch):
    asked = []
    look = os.statvfs
    monkeypatch.setattr(
        os, "statvfs", lambda path: (asked.append(Path(path).resolve()), look(path))[1]
    )
    writer = OutputWriter(folder, Limits(), lambda: None)
    writer.append(1, b"first")
    folder.path.rename(folder.path.with_name("aside"))  # another disk may be in its place
    asked.clear()
    writer.append(1, b"second")
    writer.close()
    assert asked == [folder.path.with_name("aside") / "out-00000000.seg"]
    assert not writer.dropped
