"""A full disk: nothing is lost, nothing ends wrongly, and service resumes by itself."""

import os
import signal

import grpc
import pytest

from agent.spool import EXIT, POSITION, AttemptFolder, Spool, has_room
from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent import disks
from tests.unit.agent.kit import alive, until, waits

MUCH = [f"line {i} {'x' * 100}" for i in range(1, 60_001)]
"""Half as much again as a small disk holds."""

PRINT_MUCH = f"i=0; while [ $i -lt {len(MUCH)} ]; do i=$((i+1)); echo line $i {'x' * 100}; done"


@pytest.fixture(params=disks.kinds(), ids=lambda kind: kind.__name__)
def disk(request, tmp_path):
    """A disk that a test can fill."""
    path = tmp_path / "disk"
    path.mkdir()
    disk = request.param(path)
    disk.attach()
    yield disk
    disk.detach()


@pytest.fixture
def data_dir(disk):
    """A data directory on the disk; agents of these tests have none elsewhere."""
    path = disk.path / "agent"
    path.mkdir()
    return path


async def beats_on(plane):
    """Waits for further heartbeats."""
    seen = len(plane.beats)
    await until(lambda: len(plane.beats) > seen + 1)


async def test_what_cannot_start_is_handed_back_until_there_is_room(plane, disk, start_agent):
    agent = start_agent()
    await agent.ready()
    disk.fill(agent)
    first = plane.assign("echo first")
    await until(lambda: first.handed_back)
    await until(lambda: plane.beats and plane.beats[-1].draining)
    crossing = plane.assign("echo crossing")
    await until(lambda: crossing.handed_back)
    await beats_on(plane)
    assert agent.spooled() == []
    assert first.statuses == crossing.statuses == []
    assert plane.beats[-1].draining
    disk.free(agent)
    await until(lambda: not plane.beats[-1].draining)
    second = plane.assign("echo second")
    await until(lambda: second.whole)
    assert second.end.status == task_pb2.TASK_STATUS_SUCCESS


async def test_an_agent_without_streams_fetches_nothing_meanwhile(plane, disk, start_agent):
    plane.no_streams = grpc.StatusCode.UNIMPLEMENTED
    agent = start_agent()
    await agent.ready()
    disk.fill(agent)
    first = await plane.offer("echo first")
    await until(lambda: first.released)
    # Another fetch was open already; what it brings goes back too.
    crossing = await plane.offer("echo crossing")
    await until(lambda: crossing.released)
    fetches = len(plane.fetches)
    last = await plane.offer("echo last")
    beats = len(plane.unary_beats)
    await until(lambda: len(plane.unary_beats) > beats + 1)
    assert len(plane.fetches) == fetches
    disk.free(agent)
    await until(lambda: last.whole)
    assert first.statuses == crossing.statuses == []


async def test_a_cancel_of_what_cannot_start_is_confirmed(plane, disk, start_agent):
    agent = start_agent()
    await agent.ready()
    os.kill(agent.supervisor_pid(), signal.SIGSTOP)
    lease = plane.assign("echo never")
    await until(lambda: plane.beats and plane.beats[-1].held.leases)
    plane.cancel(lease)
    await beats_on(plane)
    disk.fill(agent)
    os.kill(agent.supervisor_pid(), signal.SIGCONT)
    await until(lambda: lease.whole)
    assert lease.end.status == task_pb2.TASK_STATUS_CANCELLED
    disk.free(agent)


async def test_a_task_that_prints_waits_and_goes_on_where_it_was(plane, disk, start_agent, gate):
    agent = start_agent()
    lease = plane.assign("echo pid $$", waits(gate), PRINT_MUCH)
    await until(lambda: lease.lines)
    pid = int(lease.text[0].split()[-1])
    disk.fill(agent)
    gate.touch()
    await beats_on(plane)
    assert alive(pid)
    assert lease.ends == []
    disk.free(agent)
    await until(lambda: lease.whole, seconds=60)
    assert lease.text[1:] == MUCH
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    await until(lambda: agent.spooled() == [])


async def test_a_log_larger_than_the_disk_passes_through_it(plane, disk, start_agent, data_dir):
    agent = start_agent()
    await agent.ready()
    plane.log_errors = [grpc.StatusCode.UNAVAILABLE.value[0]] * 10_000
    lease = plane.assign(PRINT_MUCH)
    spool = Spool(data_dir).folder(lease.task.lease_id)
    # It has stopped for want of room, or where there is plenty, has printed all.
    await until(lambda: not has_room(data_dir) or spool.read(EXIT))
    await beats_on(plane)
    assert lease.lines == []
    plane.log_errors.clear()
    await until(lambda: lease.whole, seconds=60)
    assert lease.text == MUCH


async def test_a_quiet_task_ends_as_it_would(plane, disk, start_agent, gate):
    agent = start_agent()
    lease = plane.assign("echo on", waits(gate), "exit 3")
    await until(lambda: lease.lines)
    disk.fill(agent)
    gate.touch()
    if not disk.reserves:
        await beats_on(plane)
        disk.free(agent)
    await until(lambda: lease.whole)
    assert lease.end.exit_code == 3
    assert lease.end.failure == agent_pb2.FAILURE_CLASS_TASK
    await until(lambda: agent.spooled() == [])


@pytest.mark.parametrize("supervisor_too", [False, True])
async def test_an_agent_that_starts_on_a_full_disk_reports_what_it_finds(
    plane, disk, start_agent, gate, supervisor_too
):
    agent = start_agent()
    lease = plane.assign("echo on", waits(gate))
    await until(lambda: lease.lines)
    disk.fill(agent)
    if supervisor_too:
        os.kill(agent.supervisor_pid(), signal.SIGKILL)
    agent.process.kill()
    await agent.exit_code()
    again = start_agent()
    await again.ready()
    gate.touch()
    if not disk.reserves:
        disk.free(again)
    await until(lambda: lease.whole)
    assert lease.text == ["on"]
    lost = agent_pb2.FAILURE_CLASS_INFRASTRUCTURE if supervisor_too else 0
    assert lease.end.failure == lost


def test_what_was_reserved_is_written_on_a_full_disk(disk):
    folder = AttemptFolder(disk.path)
    folder.reserve(EXIT, POSITION)
    if disk.reserves:
        disk.fill(None)
        assert not Spool(disk.path).takes_more()
        assert not has_room(disk.path)
    for name in (EXIT, POSITION):
        folder.write(name, {"text": "x" * 3000})
        assert folder.read(name) == {"text": "x" * 3000}
    assert not list(disk.path.glob("*.tmp"))
