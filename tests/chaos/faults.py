"""What goes wrong, when, and for how long: all of it drawn from the seed."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import psutil

from tests.chaos.actors import AgentActor, ServerActor
from tests.chaos.postgres import MODES, CrashingPostgres
from tests.chaos.proxy import Link

WEIGHTS = {
    "server kill": 8,
    "server freeze": 5,
    "server restart": 2,
    "session kill": 14,
    "session freeze": 8,
    "session restart": 3,
    "supervisor kill": 7,
    "supervisor freeze": 5,
    "agent kill": 5,
    "link cut": 14,
    "link half-close": 6,
    "link stall": 7,
    "link delay": 8,
    "link move": 8,
    "network outage": 2,
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    after: float
    """Seconds after the one before it."""
    kind: str
    target: int
    """Which one of its kind, modulo how many there are."""
    seconds: float
    """How long it lasts."""
    mode: str = ""


def plan(seed: int, every: float, lease: float) -> Iterator[Fault]:
    """Yield what a seed does; how processes and packets interleave is not the seed's."""
    rng = random.Random(f"faults {seed}")  # noqa: S311 (chaos that can be had again)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        yield Fault(
            after=min(rng.expovariate(1 / every), 4 * every),
            kind=rng.choices(kinds, weights)[0],
            target=rng.randrange(1000),
            seconds=_span(rng, lease),
        )


def database_plan(seed: int, every: float) -> Iterator[Fault]:
    """Yield the crashes of the database."""
    rng = random.Random(f"database {seed}")  # noqa: S311 (chaos that can be had again)
    while True:
        mode = rng.choices(list(MODES), [5, 3, 2])[0]
        down = rng.choice([0.0, 0.0, rng.uniform(0, 1), rng.uniform(0, 3)])
        yield Fault(rng.uniform(0.6, 1.6) * every, "database", 0, down, mode)


def _span(rng: random.Random, lease: float) -> float:
    """Return mostly a moment, sometimes more than a lease."""
    kind = rng.random()
    if kind < 0.65:
        return rng.uniform(0.0, 1.2)
    if kind < 0.9:
        return rng.uniform(1.2, 4.0)
    return lease + rng.uniform(0.5, 4.0)


class World(Protocol):
    """What can be broken."""

    servers: list[ServerActor]
    agents: list[AgentActor]
    links: list[Link]
    postgres: CrashingPostgres | None

    def complain(self, rule: str, subject: str, evidence: str) -> None:
        """Note a violation."""

    def move(self, link: int) -> None:
        """Let new connections of a link go to another server."""


class Faults:
    """Carries faults out; what is broken already is left alone."""

    def __init__(self, world: World, lease: float):
        self.counts: Counter[str] = Counter()
        self._lease = lease
        self._world = world
        self._busy: set[object] = set()

    async def run(self, plan: Iterator[Fault], until: float):
        """Carry out a plan until a moment of the loop's clock, then heal everything."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                if loop.time() + fault.after >= until:
                    break
                await asyncio.sleep(fault.after)
                left = until - loop.time()
                group.create_task(self._strike(replace(fault, seconds=min(fault.seconds, left))))
            await asyncio.sleep(max(0.0, until - loop.time()))

    async def _strike(self, fault: Fault):
        thing, _, what = fault.kind.partition(" ")
        target = self._target(thing, fault)
        if target is None or target in self._busy:
            return
        self._busy.add(target)
        try:
            act = getattr(self, f"_{thing}_{what.replace('-', '_')}".rstrip("_"))
            if await act(target, fault) is not False:
                self.counts[fault.kind + (f" {fault.mode}" if fault.mode else "")] += 1
        finally:
            self._busy.discard(target)

    def _target(self, thing: str, fault: Fault):
        world = self._world
        if thing == "database":
            return world.postgres
        if thing == "network":
            return "network"
        things = {"server": world.servers, "link": world.links}.get(thing, world.agents)
        return things[fault.target % len(things)]

    # ---- servers

    async def _server_kill(self, server: ServerActor, fault: Fault):
        server.kill()
        await asyncio.sleep(fault.seconds)
        server.start()

    async def _server_freeze(self, server: ServerActor, fault: Fault):
        server.freeze()
        await asyncio.sleep(fault.seconds)
        server.thaw()

    async def _server_restart(self, server: ServerActor, fault: Fault):
        await self._stop_in_order(server)
        await asyncio.sleep(fault.seconds)
        server.start()

    async def _stop_in_order(self, actor: ServerActor | AgentActor):
        early = not actor.told()
        code = await actor.terminate()
        if code is None:
            self._world.complain("stops when told", actor.name, "it did not end after SIGTERM")
        elif code != 0 and not early:
            tail = actor.program.complained()[-3000:]
            self._world.complain("stops when told", actor.name, f"exit code {code}\n{tail}")

    # ---- agents

    async def _session_kill(self, agent: AgentActor, fault: Fault):
        agent.kill()
        await asyncio.sleep(fault.seconds)
        agent.start()

    async def _session_freeze(self, agent: AgentActor, fault: Fault):
        agent.freeze()
        await asyncio.sleep(fault.seconds)
        agent.thaw()

    async def _session_restart(self, agent: AgentActor, fault: Fault):
        await self._stop_in_order(agent)
        await asyncio.sleep(fault.seconds)
        agent.start()

    async def _supervisor_kill(self, agent: AgentActor, fault: Fault):
        supervisor = agent.supervisor
        if supervisor is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.kill()
        return True

    async def _supervisor_freeze(self, agent: AgentActor, fault: Fault):
        supervisor = agent.supervisor
        if supervisor is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.suspend()
            await asyncio.sleep(fault.seconds)
            supervisor.resume()
        return True

    async def _agent_kill(self, agent: AgentActor, fault: Fault):
        supervisor = agent.supervisor
        agent.kill()
        if supervisor is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                supervisor.kill()
        await asyncio.sleep(fault.seconds)
        agent.start()

    # ---- the network

    async def _link_cut(self, link: Link, fault: Fault):
        link.cut()

    async def _link_half_close(self, link: Link, fault: Fault):
        link.half_close(towards_server=fault.seconds < 0.8)

    async def _link_stall(self, link: Link, fault: Fault):
        link.stall()
        await asyncio.sleep(fault.seconds)
        link.heal()

    async def _link_delay(self, link: Link, fault: Fault):
        link.lag = 0.02 + fault.seconds / 20
        await asyncio.sleep(2 + fault.seconds)
        link.heal()

    async def _link_move(self, link: Link, fault: Fault):
        if len(self._world.servers) < 2:
            return False
        self._world.move(self._world.links.index(link))
        link.cut()
        return True

    async def _network_outage(self, _: str, fault: Fault):
        """Cut every agent off for longer than a lease: all are lost, and adopted when back."""
        links = self._world.links[: len(self._world.agents)]
        loop = asyncio.get_running_loop()
        over = loop.time() + self._lease + 3
        while loop.time() < over:
            for link in links:
                link.stall()  # again: what else is done to a link ends with its healing
            await asyncio.sleep(0.2)
        for link in links:
            link.heal()

    # ---- the database

    async def _database(self, postgres: CrashingPostgres, fault: Fault):
        await postgres.crash(fault.mode, fault.seconds)
