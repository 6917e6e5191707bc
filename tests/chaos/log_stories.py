"""Two stories about logs: one is broken all the time, one is read by many. Long here, short in e2e.

`python -m tests.chaos.log_stories` tells both at full length.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
import zlib
from dataclasses import dataclass, field
from functools import lru_cache

import grpc
from grpc import aio

from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc
from tests.chaos.proxy import Link
from tests.e2e.kit import Kit

COMPLETE = task_pb2.LOG_STATE_COMPLETE
PRINTER = """exec python3 -c '
import sys, time
lines, pauses = {lines}, {pauses}
out = sys.stdout.buffer
for part in range(pauses):
    first, end = lines * part // pauses, lines * (part + 1) // pauses
    out.write(b"".join(b"line %d\\n" % (n + 1) for n in range(first, end)))
    out.flush()
    time.sleep(0.05)
'"""


@lru_cache
def crc_of(lines):
    """Return the CRC-32 of a whole log."""
    return zlib.crc32(b"".join(b"line %d\n" % (n + 1) for n in range(lines)))


@dataclass
class Reading:
    """What one reader has got: it must be the numbered lines, each once, in order."""

    next_line: int = 1
    crc: int = 0
    wrong: list[str] = field(default_factory=list)
    state: int = 0

    def take(self, chunk):
        if chunk.line_number != self.next_line or chunk.content != f"line {self.next_line}":
            self.wrong.append(f"line {self.next_line}: got {chunk.line_number} {chunk.content!r}")
        self.crc = zlib.crc32(chunk.content.encode() + b"\n", self.crc)
        self.next_line = chunk.line_number + 1

    def problems(self, lines):
        """Return what is wrong with the whole, a line each."""
        crc = crc_of(lines)
        found = self.wrong[:3]
        if self.next_line != lines + 1:
            found.append(f"{self.next_line - 1} of {lines} lines")
        if self.crc != crc:
            found.append("another CRC-32")
        if self.state != COMPLETE:
            found.append(f"log state {self.state}")
        return found


async def follow(address, task_id):
    """Read a log from the first line to its end, through breaks, going on where it was."""
    reading = Reading()
    while not reading.state:
        async with aio.insecure_channel(address) as channel:
            request = stream_pb2.StreamTaskLogRequest(
                job_id=task_id, from_line=reading.next_line, follow=True, attempt=1, batched=True
            )
            try:
                async for answer in stream_pb2_grpc.StreamServiceStub(channel).StreamTaskLog(
                    request
                ):
                    for chunk in answer.log_chunks:
                        reading.take(chunk)
                    if answer.is_complete:
                        reading.state = answer.log_state
            except aio.AioRpcError as error:
                broken = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                if error.code() not in broken:
                    raise
                await asyncio.sleep(0.2)
    return reading


async def start_printing(address, lines, seconds):
    """Submit a task that prints so many lines in about so many seconds; return its id."""
    script = PRINTER.format(lines=lines, pauses=max(1, int(seconds * 20)))
    async with aio.insecure_channel(address) as channel:
        stub = task_pb2_grpc.TaskServiceStub(channel)
        request = task_pb2.CreateTaskRequest(name="printer", commands=[script])
        return (await stub.CreateTask(request, timeout=20)).task_id


async def broken_all_the_time(kit, lines, seconds, *, server_kills, session_kills, stops):
    """Cut, kill and stop everything while a task prints; return what is wrong with its log."""
    server = await asyncio.to_thread(kit.start_server, "--log-incomplete-after", "600")
    host, port = server.grpc.split(":")
    link = Link(lambda: (host, int(port)))
    await link.start()
    agent = await asyncio.to_thread(kit.start_agent, link.address)
    task_id = await start_printing(server.grpc, lines, seconds)
    deeds = ["server"] * server_kills + ["session"] * session_kills + ["stop"] * stops
    random.Random(lines).shuffle(deeds)  # noqa: S311 (the same order every time)
    until = time.monotonic() + seconds

    async def break_things():
        for deed in deeds:
            await asyncio.sleep(seconds / (len(deeds) + 1))
            if deed == "server":
                server.kill9()
                await asyncio.to_thread(server.start)
            elif deed == "session":
                agent.kill9()
                await asyncio.to_thread(agent.start)
            else:
                os.kill(agent.pid, signal.SIGSTOP)
                await asyncio.sleep(min(2.0, seconds / 10))
                os.kill(agent.pid, signal.SIGCONT)

    async def cut():
        while time.monotonic() < until:
            await asyncio.sleep(1)
            link.cut()

    try:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(follow(server.grpc, task_id))
            group.create_task(break_things())
            group.create_task(cut())
    finally:
        await link.stop()
    return reader.result().problems(lines)


async def read_by_many(kit, lines, seconds, followers):
    """Let followers come at random moments; return what is wrong with what they got."""
    server = await asyncio.to_thread(kit.start_server)
    await asyncio.to_thread(kit.start_agent, server)
    task_id = await start_printing(server.grpc, lines, seconds)
    dice = random.Random(followers)  # noqa: S311 (the same moments every time)

    async def come(moment):
        await asyncio.sleep(moment)
        return await follow(server.grpc, task_id)

    async with asyncio.TaskGroup() as group:
        came = [group.create_task(come(dice.uniform(0, seconds * 1.2))) for _ in range(followers)]
    return [problem for each in came for problem in each.result().problems(lines)]


async def _tell(lines, seconds, followers):
    found = []
    for story in (
        lambda kit: broken_all_the_time(
            kit, lines, seconds, server_kills=3, session_kills=2, stops=2
        ),
        lambda kit: read_by_many(kit, lines // 50, seconds / 3, followers),
    ):
        kit = Kit()
        try:
            began = time.monotonic()
            found += (problems := await story(kit))
            took = time.monotonic() - began
            sys.stdout.write(f"{len(problems)} problems, {took:.1f} s\n")
        finally:
            kit.close()
    return found


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.log_stories")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--followers", type=int, default=200)
    given = parser.parse_args()
    found = asyncio.run(_tell(given.lines, given.seconds, given.followers))
    for problem in found:
        sys.stdout.write(f"VIOLATION {problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
