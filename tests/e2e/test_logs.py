"""Logs: whole, live, from any line on, whatever a task prints."""

import asyncio
import random
import time

import pytest

from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2
from tests.e2e.api import Api, soon

SUCCESS, FAILED = 4, 5
COMPLETE, OPEN = task_pb2.LOG_STATE_COMPLETE, task_pb2.LOG_STATE_OPEN
KIB = 1024


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server("--retry-backoff", "0.2")


@pytest.fixture(scope="module", autouse=True)
def _agent(shared, server):
    """Everything here runs on one agent."""
    shared.start_agent(server, slots=4)


async def page(api: Api, task_id: str, **fields):
    return await api.tasks.GetTaskLog(task_pb2.GetTaskLogRequest(task_id=task_id, **fields))


async def test_a_follower_sees_lines_as_they_are_printed(api: Api, gate):
    task_id = await api.create("echo one", "echo two >&2", gate.wait, "echo three")
    seen = []
    async for answer in api.follow(task_id):
        seen.append(answer)
        if answer.log_chunk.line_number == 2:
            assert (await api.task(task_id)).status == task_pb2.TASK_STATUS_RUNNING
            gate.open()
    *lines, end = [answer.log_chunk for answer in seen]
    assert [line.line_number for line in lines] == [1, 2, 3]
    assert sorted(line.content for line in lines[:2]) == ["one", "two"]
    assert {line.content: (line.stream, line.level) for line in lines} == {
        "one": ("stdout", "info"),
        "two": ("stderr", "error"),
        "three": ("stdout", "info"),
    }
    now = time.time() * 1000
    assert all(now - 60_000 < line.timestamp <= now + 1000 for line in lines)
    assert [answer.is_complete for answer in seen] == [False, False, False, True]
    assert end.content == ""
    assert seen[-1].log_state == COMPLETE


async def test_without_follow_only_what_there_is_is_told(api: Api, gate):
    task_id = await api.create("seq 1 5", gate.wait, "echo last")
    async for answer in api.follow(task_id):
        if answer.log_chunk.line_number == 5:
            break
    request = {"job_id": task_id}
    told = [answer async for answer in replay(api, request)]
    assert [answer.log_chunk.content for answer in told] == list("12345")
    assert not told[-1].is_complete
    gate.open()
    await api.text(task_id)
    told = [answer async for answer in replay(api, request)]
    assert (len(told), told[-1].is_complete) == (7, True)


def replay(api: Api, fields):
    return api.streams.StreamTaskLog(stream_pb2.StreamTaskLogRequest(**fields), timeout=30)


async def test_a_log_is_read_from_any_line_on(api: Api):
    task_id = await api.create("seq 1 2500")
    assert await api.text(task_id) == [str(n) for n in range(1, 2501)]
    rest = [answer async for answer in api.follow(task_id, from_line=2400, batched=True)]
    chunks = [chunk for answer in rest for chunk in answer.log_chunks]
    assert [chunk.line_number for chunk in chunks] == list(range(2400, 2501))
    [end] = [answer async for answer in api.follow(task_id, from_line=2501)]
    assert end.is_complete
    first = await page(api, task_id)
    assert (len(first.logs), first.total_lines, first.has_more) == (1000, 2500, True)
    last = await page(api, task_id, offset=2400, limit=1000)
    assert [line.line_number for line in last.logs] == list(range(2401, 2501))
    assert (last.has_more, last.log_state, last.attempt) == (False, COMPLETE, 1)
    beyond = await page(api, task_id, offset=9999)
    assert (list(beyond.logs), beyond.total_lines) == ([], 2500)


async def test_a_log_is_read_from_its_end_backwards_and_since_a_moment(api: Api, gate):
    task_id = await api.create("seq 1 2500", gate.wait, "seq 2501 2600")

    async def is_there():
        return (await page(api, task_id, limit=1)).total_lines == 2500

    await soon(is_there)
    assert numbers(await page(api, task_id, tail=3)) == [2498, 2499, 2500]
    following = aiter(api.follow(task_id, tail=2, batched=True))
    stored = await anext(following)  # what comes later was not there when the tail was found
    assert [chunk.line_number for chunk in stored.log_chunks] == [2499, 2500]
    gate.open()
    assert await all_lines(following) == list(range(2501, 2601))
    assert numbers(await page(api, task_id, before_line=2400, limit=2)) == [2398, 2399]
    assert numbers(await page(api, task_id, before_line=3, limit=50)) == [1, 2]
    later = (await page(api, task_id, offset=2500, limit=1)).logs[0].timestamp
    assert numbers(await page(api, task_id, since=later)) == list(range(2501, 2601))
    assert numbers(await page(api, task_id, since=later, tail=5)) == list(range(2596, 2601))
    assert numbers(await page(api, task_id, since=later + 3_600_000)) == []
    assert await all_lines(api.follow(task_id, since=later)) == list(range(2501, 2601))


def numbers(answer):
    return [line.line_number for line in answer.logs]


async def all_lines(answers):
    """Return the numbers of all lines in a stream of answers."""
    found = []
    async for answer in answers:
        found += [chunk.line_number for chunk in answer.log_chunks]
        if answer.HasField("log_chunk"):
            found.append(answer.log_chunk.line_number)
    return found


async def test_bytes_that_are_not_utf8_are_shown_and_kept(api: Api):
    task_id = await api.create(r"printf 'good\n\377\376bad\n\000nul\n\303\244\n'")
    lines = await api.log(task_id)
    assert [line.content for line in lines] == ["good", "��bad", "\0nul", "ä"]
    assert [line.raw for line in lines] == [b"", b"\xff\xfebad", b"", b""]


async def test_a_line_longer_than_256_kib_comes_in_pieces(api: Api):
    size = 300 * KIB
    task_id = await api.create(f"head -c {size} /dev/zero | tr '\\0' x", "echo", "echo after")
    first, second, after = await api.log(task_id)
    assert (len(first.content), first.continued) == (256 * KIB, True)
    assert (len(second.content), second.continued) == (size - 256 * KIB, False)
    assert set(first.content + second.content) == {"x"}
    assert after.content == "after"


async def test_a_last_line_without_its_end_is_a_line(api: Api):
    task_id = await api.create("printf 'one\\ntwo'")
    assert await api.text(task_id) == ["one", "two"]
    task_id = await api.create("printf '\\n\\nx\\n'")
    assert await api.text(task_id) == ["", "", "x"]


async def test_whatever_is_printed_is_kept_exactly(api: Api):
    odd = r"\357\273\277bom\n\033[31mred\033[0m\ncr\rlf\r\n\000\n\360\237\230\200\nno end"
    task_id = await api.create(f"printf '{odd}'")
    assert await api.text(task_id) == [
        "\ufeffbom",
        "\x1b[31mred\x1b[0m",
        "cr\rlf\r",
        "\0",
        "\U0001f600",
        "no end",
    ]


async def test_a_line_of_ten_mebibytes_and_a_hundred_thousand_empty_ones_are_kept(api: Api):
    size = 10 * 1024 * KIB
    letters = f"head -c {size} /dev/zero | tr '\\0' x"
    task_id = await api.create(letters, "echo", "head -c 100000 /dev/zero | tr '\\0' '\\n'")
    lines = await api.log(task_id)
    pieces = [line for line in lines if line.content]
    assert "".join(piece.content for piece in pieces) == "x" * size
    assert [piece.continued for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert len(lines) - len(pieces) == 100_000
    assert (await page(api, task_id, limit=1)).log_state == COMPLETE


async def test_a_task_that_prints_nothing_has_a_whole_log_of_nothing(api: Api):
    for fields in ({}, {"executor": "noop"}):
        task_id = await api.create("true", **fields)
        assert await api.text(task_id) == []
        assert (await page(api, task_id)).log_state == COMPLETE


async def test_twenty_thousand_lines_come_fast_and_whole(api: Api):
    began = time.monotonic()
    task_id = await api.create("seq 1 20000")
    assert await api.text(task_id) == [str(n) for n in range(1, 20001)]
    assert time.monotonic() - began < 20
    attempt = (await api.task(task_id)).attempts[0]
    assert (attempt.log_lines, attempt.log_state) == (20_000, COMPLETE)


async def test_twenty_followers_that_come_at_any_moment_each_get_all_of_it(api: Api):
    lines = 3000
    pause = "[ $((i % 100)) -ne 0 ] || sleep 0.03"
    script = f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; {pause}; done"
    task_id = await api.create(script)
    dice = random.Random(20)  # noqa: S311 (the same moments every time)

    async def come_and_read(moment: int) -> list[str]:
        """Come when the log has so many lines; every other one takes it line by line."""

        async def is_there():
            return (await page(api, task_id, limit=1)).total_lines >= moment

        await soon(is_there, within=90, every=0.2)
        if moment % 2:
            return await api.text(task_id)
        answers = [answer async for answer in api.follow(task_id)]
        assert answers[-1].is_complete
        return [answer.log_chunk.content for answer in answers[:-1]]

    async with asyncio.TaskGroup() as group:
        readers = [
            group.create_task(come_and_read(dice.randrange(0, lines + 1))) for _ in range(20)
        ]
    expected = [f"line {n}" for n in range(1, lines + 1)]
    for reader in readers:
        assert reader.result() == expected


async def test_a_follower_goes_on_into_the_next_attempt(api: Api, tmp_path):
    flag = tmp_path / "flag"
    task_id = await api.create(
        f"if test -e {flag}; then echo second; else touch {flag}; echo first; exit 1; fi",
        retry_count=1,
    )
    answers = [answer async for answer in api.follow(task_id)]
    told = [(a.attempt, a.log_chunk.line_number, a.log_chunk.content) for a in answers[:-1]]
    assert told == [(1, 1, "first"), (2, 1, "second")]
    assert (answers[-1].is_complete, answers[-1].attempt) == (True, 2)
    assert await api.text(task_id, attempt=1) == ["first"]
    assert [line.content for line in (await page(api, task_id)).logs] == ["second"]
    assert [line.content for line in (await page(api, task_id, attempt=1)).logs] == ["first"]
    task = await api.task(task_id)
    assert [(a.number, a.log_lines, a.log_state) for a in task.attempts] == [
        (1, 1, COMPLETE),
        (2, 1, COMPLETE),
    ]


async def test_a_follower_that_comes_before_the_task_starts_waits_for_it(api: Api, gate):
    first = await api.create(gate.wait)
    task_id = await api.create("echo at last", depends_on=[first])
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(api.text(task_id))
        await api.runs(first)
        gate.open()
    assert reader.result() == ["at last"]


async def test_the_end_of_the_log_waits_for_the_last_line(shared, server, api: Api, gate, tmp_path):
    """The agent is cut off with lines in hand: the log is whole only when it has sent them."""
    agent = shared.start_agent(server, "--name", "cut", labels={"cut": "off"})
    selector = task_pb2.LabelSelector(match_labels={"cut": "off"})
    task_id = await api.create(
        "echo one",
        gate.wait,
        "seq 2 5000",
        f"touch {tmp_path}/done",
        label_selector=selector,
    )
    async for answer in api.follow(task_id):
        assert answer.log_chunk.content == "one"
        break
    agent.kill9()
    gate.open()

    async def has_ended():
        return (tmp_path / "done").exists()

    await soon(has_ended)
    assert (await page(api, task_id)).log_state == OPEN
    reading = asyncio.ensure_future(api.text(task_id))
    agent.start()
    assert await reading == ["one", *(str(n) for n in range(2, 5001))]
    task = await api.task(task_id)
    assert (task.status, task.attempts[0].log_lines) == (SUCCESS, 5000)
    assert agent.terminate() == 0
