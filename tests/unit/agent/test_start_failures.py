"""An agent that cannot start tasks hands them back, takes none for a while, and tries again."""

import resource
import shutil

from tests.unit.agent.kit import until


async def test_a_spool_that_was_deleted_is_made_again(plane, start_agent, data_dir):
    agent = start_agent()
    await agent.ready()
    shutil.rmtree(data_dir / "spool")
    lease = plane.assign("echo on")
    await until(lambda: lease.whole)
    assert lease.text == ["on"]


async def test_a_spool_that_cannot_be_made_is_tried_again(plane, start_agent, data_dir):
    agent = start_agent()
    await agent.ready()
    shutil.rmtree(data_dir / "spool")
    (data_dir / "spool").write_text("in the way")
    first = plane.assign("echo first")
    await until(lambda: first.handed_back)
    await until(lambda: plane.beats and plane.beats[-1].draining)
    crossing = plane.assign("echo crossing")
    await until(lambda: crossing.handed_back)
    assert first.statuses == crossing.statuses == []
    (data_dir / "spool").unlink()
    await until(lambda: not plane.beats[-1].draining)
    again = plane.assign("echo again")
    await until(lambda: again.whole)


async def test_a_supervisor_without_files_hands_back_and_recovers(plane, start_agent):
    agent = start_agent()
    await agent.ready()
    supervisor = agent.supervisor_pid()
    usual = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, usual[1]))
    lease = plane.assign("echo never")
    await until(lambda: lease.handed_back)
    assert lease.why_back.startswith("could not start: ")
    assert lease.statuses == []
    assert agent.spooled() == []
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, usual)
    await until(lambda: plane.beats and not plane.beats[-1].draining)
    again = plane.assign("echo again")
    await until(lambda: again.whole)
