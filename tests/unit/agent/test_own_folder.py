"""What a task does to its own folder: it ends, and its log claims no more than there is."""

import os
import signal

import pytest

from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until, waits

FOLDER = 'd="$(dirname "$HOME")"; cd /'
GOODBYE = f'{FOLDER}; sleep 0.2; rm -rf "$d"; sleep 0.2'
MUCH = "head -c 300000 /dev/zero | tr '\\0' x"
"""More than a pipe holds: it ends only when somebody reads."""


@pytest.mark.parametrize("before", ["true", "echo first"])
@pytest.mark.parametrize("after", ["echo hi", MUCH])
async def test_a_task_that_deletes_its_folder_ends(plane, start_agent, before, after):
    agent = start_agent()
    lease = plane.assign(before, GOODBYE, after, "exit 3")
    await until(lambda: lease.end, seconds=10)
    assert (lease.end.status, lease.end.exit_code) == (task_pb2.TASK_STATUS_FAILED, 3)
    assert not lease.end.HasField("log")
    assert "hi" not in lease.text
    following = plane.assign("echo following")
    await until(lambda: following.whole)
    await until(lambda: not agent.spooled())


async def test_a_silent_task_that_deletes_its_folder_has_a_whole_log(plane, start_agent):
    start_agent()
    lease = plane.assign(GOODBYE)
    await until(lambda: lease.whole, seconds=10)
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS


@pytest.mark.parametrize("name", ["exit.json", "exit.json.tmp", "position.json"])
async def test_a_task_that_puts_a_folder_in_a_files_place_ends(plane, start_agent, name):
    agent = start_agent()
    lease = plane.assign(f'{FOLDER}; rm -f "$d/{name}"; mkdir -p "$d/{name}/x"; echo made')
    await until(lambda: lease.whole, seconds=10)
    assert lease.text == ["made"]
    await until(lambda: not agent.spooled())


@pytest.mark.parametrize("name", ["exit.json", "exit.json.tmp", "out-00000000.seg"])
async def test_a_task_that_puts_a_pipe_in_a_files_place_holds_up_nobody(plane, start_agent, name):
    agent = start_agent()
    lease = plane.assign(f'{FOLDER}; rm -f "$d/{name}"; mkfifo "$d/{name}"; echo made')
    await until(lambda: lease.end, seconds=10)
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    following = plane.assign("echo following")
    await until(lambda: following.whole)
    await until(lambda: not agent.spooled())


async def test_a_task_that_deletes_its_output_has_no_whole_log(plane, start_agent):
    start_agent()
    lease = plane.assign("echo first", f'{FOLDER}; sleep 0.2; rm "$d"/out-*', "echo second")
    await until(lambda: lease.end, seconds=10)
    assert lease.end.status == task_pb2.TASK_STATUS_SUCCESS
    assert not lease.end.HasField("log")


SPOILS = {
    "link": "ln -s x {}",
    "folder": "mkdir {}",
    "nonsense": "echo '{{\"a\":1}}' > {}",
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
async def test_a_task_that_spoils_its_place_holds_up_nobody(plane, start_agent, gate, spoil):
    agent = start_agent()
    spoilt = spoil.format('"$d"/position.json')
    lease = plane.assign(f"{FOLDER}; {spoilt}; echo made; {waits(gate)}; exit 3")
    await until(lambda: lease.text == ["made"])
    following = plane.assign("echo following")
    await until(lambda: following.whole)
    gate.touch()
    await until(lambda: lease.whole)
    assert lease.end.exit_code == 3
    await until(lambda: not agent.spooled())


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("name", ["task.json", "exit.json"])
async def test_a_task_that_spoils_what_a_successor_needs_holds_up_nobody(
    plane, start_agent, gate, spoil, name
):
    agent = start_agent()
    spoilt = spoil.format(f'"$d/{name}"')
    lease = plane.assign(f'{FOLDER}; rm -f "$d/{name}"; {spoilt}; echo made; {waits(gate)}')
    await until(lambda: lease.text == ["made"])
    os.kill(agent.supervisor_pid(), signal.SIGKILL)
    gate.touch()
    following = plane.assign("echo following")
    await until(lambda: following.whole)
    await until(lambda: lease.end)
    await until(lambda: not agent.spooled())
