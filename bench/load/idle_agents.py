"""`python -m bench.load.idle_agents`: thousands of agents that are connected, beat and do nothing.

Each agent is what a real one is to the server: a registered session, a connection of its own, and
an AgentChannel stream on it with a heartbeat as often as the server says. Prints `ready agents=N`
once all are welcome, and goes on until SIGTERM.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator

import click
import grpc.aio

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc

CALL_SECONDS = 60.0
AT_ONCE = 32
"""Agents that connect at the same time."""
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
"""Without this, channels to one address would share one connection."""

Request = stream_pb2.AgentChannelRequest


@click.command()
@click.option("--server", required=True, help="The control plane, HOST:PORT.")
@click.option("--agents", type=click.IntRange(1), required=True, help="How many.")
def main(server: str, agents: int) -> None:
    """Keep so many idle agents connected until SIGTERM; losing one ends the program."""
    asyncio.run(run(server, agents))


async def run(server: str, number: int) -> None:
    """Connect all agents, say so, and keep them until SIGTERM."""
    connecting = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as group:
        agents = [IdleAgent(server, place) for place in range(number)]
        keeping = [group.create_task(agent.run(connecting)) for agent in agents]
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: [task.cancel() for task in keeping])
        for agent in agents:
            await agent.welcome.wait()
        sys.stdout.write(f"ready agents={number}\n")
        sys.stdout.flush()


class IdleAgent:
    """One agent; `welcome` is set once its stream is open."""

    def __init__(self, server: str, place: int) -> None:
        self.welcome = asyncio.Event()
        self._server = server
        self._name = f"idle-{place}"
        self._interval = 0.0

    async def run(self, connecting: asyncio.Semaphore) -> None:
        """Connect and stay connected until cancelled.

        Raises:
            ConnectionError: the server ended the stream.
        """
        async with grpc.aio.insecure_channel(self._server, options=OPTIONS) as channel:
            async with connecting:
                session_id = await self._register(channel)
                stub: stream_pb2_grpc.StreamServiceAsyncStub = stream_pb2_grpc.StreamServiceStub(
                    channel
                )
                answers = aiter(stub.AgentChannel(self._beats(session_id)))
                welcome = await anext(answers)
                self._interval = float(welcome.welcome.heartbeat_interval)
                self.welcome.set()
            async for _ in answers:
                pass
        raise ConnectionError(f"The server ended the stream of {self._name}.")

    async def _register(self, channel: grpc.aio.Channel) -> str:
        stub: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(channel)
        request = agent_pb2.RegisterRequest(
            agent_id=self._name,
            hostname=self._name,
            os="linux",
            arch="amd64",
            max_concurrent_jobs=2,
            labels={"role": "idle"},
            held=agent_pb2.Held(),
        )
        return (await stub.Register(request, timeout=CALL_SECONDS)).session_id

    async def _beats(self, session_id: str) -> AsyncIterator[Request]:
        """Yield the hello and then a heartbeat in each interval, for ever."""
        held = agent_pb2.Held()
        hello = stream_pb2.Hello(session_id=session_id, held=held)
        yield Request(agent_id=self._name, hello=hello)
        await self.welcome.wait()
        # Agents that started together do not beat together.
        await asyncio.sleep(random.uniform(0, self._interval))  # noqa: S311 - no secret
        number = 0
        while True:
            number += 1
            beat = stream_pb2.HeartbeatData(
                timestamp=time.time_ns() // 1_000_000,
                status=agent_pb2.AGENT_STATUS_IDLE,
                max_concurrent_jobs=2,
                held=held,
            )
            yield Request(agent_id=self._name, request_id=str(number), heartbeat=beat)
            await asyncio.sleep(self._interval)


if __name__ == "__main__":
    main()
