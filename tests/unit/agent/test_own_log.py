"""The agent's own log: the server's form and options."""

import json

from tests.unit.agent.kit import until


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_records_go_to_a_file_too_in_the_servers_form(start_agent, plane, tmp_path):
    path = tmp_path / "logs" / "agent.log"
    agent = start_agent("--log-level", "info", "--log-file", str(path))
    assert (await agent.ready()).startswith(b"ready ")
    await plane.stop()
    said = await until(lambda: records(path))
    assert said[0].keys() >= {"timestamp", "level", "logger", "message"}
    assert said[0]["logger"].startswith("agent")
    assert records(agent.log)[0] == said[0]


async def test_a_module_may_have_a_level_of_its_own(start_agent, plane, tmp_path):
    path = tmp_path / "agent.log"
    flags = ("--log-level", "error", "--log-levels", "agent.session=info")
    agent = start_agent(*flags, "--log-file", str(path))
    await agent.ready()
    await plane.stop()
    said = await until(lambda: records(path))
    assert {record["logger"] for record in said} == {"agent.session"}


async def test_a_log_file_that_cannot_be_written_ends_the_start(start_agent, tmp_path):
    (tmp_path / "file").write_text("")
    agent = start_agent("--log-file", str(tmp_path / "file" / "agent.log"))
    assert await agent.exit_code() == 1
    assert "Error: log file: " in agent.log.read_text()
