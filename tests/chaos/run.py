"""One chaos run: start everything, break it again and again, let it settle, see what is left."""

import asyncio
import contextlib
import logging
import random
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from server.stores.sql.tables import agents as agents_table
from server.stores.sql.tables import tasks as tasks_table
from tests.chaos.actors import Actor, AgentActor, ServerActor
from tests.chaos.checks import Checker, Violation, figures
from tests.chaos.evidence import (
    Evidence,
    described,
    living,
    read_database,
    read_journal,
    read_log_journal,
)
from tests.chaos.faults import Faults, database_plan, plan
from tests.chaos.postgres import CrashingPostgres
from tests.chaos.proxy import Link
from tests.chaos.workload import Client, Submitted, plan_runs, plan_tasks
from tests.e2e.processes import Launcher

SLOTS = 4
CLIENTS = 3
INFRA_RETRY_LIMIT = 20
START_SECONDS = 60.0

log = logging.getLogger("chaos")


@dataclass(frozen=True)
class Options:
    """What a run is told."""

    seed: int
    database: str
    seconds: float
    """How long things are broken."""
    tasks: int
    runs: int
    settle: float = 240.0
    """How long everything may take to be done once nothing is broken any more."""
    agents: int = 5
    fault_every: float = 1.1
    crash_every: float = 6.0
    lease: float = 8.0
    keep: bool = False
    """Whether the folder with logs and databases stays when something was wrong."""


@dataclass
class Result:
    """What came of it."""

    options: Options
    violations: list[Violation]
    figures: dict[str, int]
    faults: Counter[str]
    seconds: float
    folder: Path | None = None

    def summary(self) -> dict[str, object]:
        """Return it as one JSON object."""
        return {
            "seed": self.options.seed,
            "database": self.options.database,
            "ok": not self.violations,
            "violations": len(self.violations),
            "seconds": round(self.seconds, 1),
            **self.figures,
            "faults": sum(self.faults.values()),
            "faults_by_kind": dict(sorted(self.faults.items())),
            "folder": str(self.folder) if self.folder else None,
        }


@dataclass
class World:
    """Everything that runs, for the faults to reach."""

    options: Options
    run: str
    folder: Path
    launcher: Launcher
    rng: random.Random
    servers: list[ServerActor] = field(default_factory=list)
    agents: list[AgentActor] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    postgres: CrashingPostgres | None = None
    database_url: str = ""
    violations: list[Violation] = field(default_factory=list)
    _homes: dict[int, int] = field(default_factory=dict)

    @property
    def journal(self) -> Path:
        """Where tasks write down that they run."""
        return self.folder / "journal"

    @property
    def actors(self) -> list[Actor]:
        """Every program."""
        return [*self.servers, *self.agents]

    def complain(self, rule: str, subject: str, evidence: str) -> None:
        """Note a violation."""
        log.error("violation: [%s] %s: %s", rule, subject, evidence)
        self.violations.append(Violation(rule, subject, evidence))

    def move(self, link: int) -> None:
        """Let new connections of a link go to the next server."""
        self._homes[link] = (self._homes[link] + 1) % len(self.servers)

    async def add_link(self) -> Link:
        """Return a new link, to a server that the seed chooses."""
        number = len(self.links)
        self._homes[number] = self.rng.randrange(len(self.servers))
        link = Link(lambda: self.servers[self._homes[number]].address)
        await link.start()
        self.links.append(link)
        return link


async def run(options: Options) -> Result:
    """Do one run; everything it started is ended when this returns or raises."""
    began = time.monotonic()
    # Unix sockets have at most 107 characters, so the folder's name is short.
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    rng = random.Random(options.seed)  # noqa: S311 (chaos that can be had again)
    world = World(options, uuid.uuid4().hex, folder, Launcher(folder), rng)
    world.journal.touch()
    keep = options.keep
    try:
        async with _programs(world):
            evidence, faults = await _story(world)
        world.violations += Checker(evidence).violations()
        for actor in world.actors:
            for line in actor.complaints():
                if world.postgres is not None and "The database does not answer" in line:
                    continue  # told at the start of a server, whose init would start it again
                world.complain("no program logs an error of its own", actor.name, line)
        keep = keep and bool(world.violations)
        return Result(
            options,
            world.violations,
            {**figures(evidence), **_starts(world, evidence)},
            faults.counts,
            time.monotonic() - began,
            folder if keep else None,
        )
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _starts(world: World, evidence: Evidence) -> dict[str, int]:
    return {
        "server_starts": sum(server.starts for server in world.servers),
        "session_starts": sum(agent.starts for agent in world.agents),
        "connections": sum(link.accepted for link in world.links),
        "repeated_calls": evidence.submitted.repeats,
        "cancels": len(evidence.submitted.cancels),
        "ends_seen": len(evidence.submitted.seen),
    }


@asynccontextmanager
async def _programs(world: World) -> AsyncIterator[None]:
    """Start everything, and end everything, however this ends."""
    try:
        await _start_database(world)
        _add_servers(world)
        for server in world.servers:
            # One after another: the first one makes the schema.
            server.start()
            await _until(lambda server=server: server.address, START_SECONDS, "a server serves")
        for number in range(world.options.agents):
            link = await world.add_link()
            agent = AgentActor(
                world.launcher,
                f"agent{number}",
                world.folder / f"a{number}",
                link.address,
                SLOTS,
            )
            world.agents.append(agent)
            agent.start()
        yield
    finally:
        _end(world)
        for link in world.links:
            await link.stop()
        if world.postgres is not None:
            world.postgres.stop()


async def _start_database(world: World) -> None:
    if world.options.database == "postgres":
        world.postgres = CrashingPostgres()
        url = world.postgres.url(await world.postgres.create())
        world.database_url = url.render_as_string(hide_password=False)
    else:
        world.database_url = f"sqlite+aiosqlite:///{world.folder / 'muster.db'}"


def _add_servers(world: World) -> None:
    lease = world.options.lease
    flags = [
        *("--heartbeat-interval", "1", "--lease", f"{lease:g}", "--start-grace", f"{lease:g}"),
        *("--kill-grace", "1", "--deadline-slack", "5", "--claim-to-start", "10"),
        *("--infra-retry-limit", str(INFRA_RETRY_LIMIT), "--shutdown-grace", "2"),
        *("--retry-backoff", "0.2", "--retry-backoff-max", "1", "--log-settle", "1"),
        *("--log-incomplete-after", "600"),  # nobody is gone for good here
    ]
    if world.postgres is not None:
        flags += ["--database-url", world.database_url]
    else:
        flags += ["--database-url", f"sqlite:///{world.folder / 'muster.db'}"]
    count = 2 if world.postgres is not None else 1
    for number in range(count):
        folder = world.folder / f"s{number}"
        world.servers.append(ServerActor(world.launcher, f"server{number}", folder, flags))


def _end(world: World) -> None:
    """End every process at once; after a run that went well there is none."""
    for actor in world.actors:
        if actor.program is not None and actor.program.exit_code is None:
            actor.kill()
    ours = [*world.launcher.marked(), *living(world.run)]
    for process in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(ours, timeout=15)


async def _story(world: World) -> tuple[Evidence, Faults]:
    options = world.options
    submitted = Submitted()
    addresses = [(await world.add_link()).address for _ in range(CLIENTS)]
    client = Client(world.run, str(world.journal), addresses, submitted, world.complain)
    faults = Faults(world, options.lease)
    loop = asyncio.get_running_loop()
    until = loop.time() + options.seconds
    span = 0.85 * options.seconds
    try:
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(_revive(world)),
                group.create_task(client.watch(every=0.05)),
                group.create_task(_count_slots(world)),
            ]
            submitting = group.create_task(
                client.submit_all(
                    plan_tasks(options.seed, options.tasks, span),
                    plan_runs(options.seed, options.runs, span),
                )
            )
            breaking = [
                group.create_task(
                    faults.run(plan(options.seed, options.fault_every, options.lease), until)
                ),
            ]
            if world.postgres is not None:
                crashes = database_plan(options.seed, options.crash_every)
                breaking.append(group.create_task(faults.run(crashes, until)))
            await asyncio.gather(*breaking)
            log.info("broken for %.0f s; now it settles", options.seconds)
            await _settle(world, client, submitting)
            for task in background:
                task.cancel()
        evidence = Evidence(submitted, infra_retry_limit=INFRA_RETRY_LIMIT)
        await _look_at_the_host(world, evidence)
        for task_id in list(submitted.tasks):
            await client.look(task_id)
    finally:
        await client.close()
    log.info("all is looked at; now it stops")
    await _stop(world)
    logs = world.folder / "muster.logs"
    await read_database(evidence, world.database_url, logs)
    read_log_journal(evidence, logs)
    evidence.journal = read_journal(world.journal)
    return evidence, faults


async def _revive(world: World) -> None:
    """Start again what ended by itself, as an init would, and note it: nothing may."""
    while True:
        await asyncio.sleep(0.1)
        for actor in world.actors:
            if not actor.died:
                continue
            program = actor.program
            if world.postgres is not None and actor.kind == "server" and not actor.told():
                actor.refused_starts += 1  # its database is just away
            else:
                tail = program.complained()[-3000:]
                said = f"exit code {program.exit_code} of {program.name}\n{tail}"
                world.complain("no program ends by itself", actor.name, said)
            await asyncio.sleep(0.3)
            if actor.died:
                actor.start()


MOST_AHEAD = 4


async def _count_slots(world: World) -> None:
    """Look again and again whether an agent has more leases than it may have.

    With short tasks it asks for up to `MOST_AHEAD` a slot beyond its slots (agent/pace.py).
    """
    engine = create_async_engine(world.database_url, pool_size=1)
    held = (
        select(agents_table.c.public_id, agents_table.c.slots, func.count())
        .join(tasks_table, tasks_table.c.lease_agent == agents_table.c.key)
        .group_by(agents_table.c.public_id, agents_table.c.slots)
    )
    try:
        while True:
            await asyncio.sleep(0.5)
            with contextlib.suppress(SQLAlchemyError, OSError):
                async with engine.connect() as connection:
                    for name, slots, count in await connection.execute(held):
                        if count > slots * (1 + MOST_AHEAD):
                            text = f"holds {count} leases in {slots} slots"
                            world.complain("no agent over its slots", name, text)
    finally:
        await engine.dispose()


async def _settle(world: World, client: Client, submitting: "asyncio.Task[None]") -> None:
    """Wait until all is done; what is not done in time is left for the checks to name."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + world.options.settle
    try:
        async with asyncio.timeout_at(give_up):
            await submitting
            while await client.unfinished():  # noqa: ASYNC110 (processes set no events)
                await asyncio.sleep(0.3)
    except TimeoutError:
        world.complain("it settles", "the run", "tasks have not ended in time")
        return
    log.info("all tasks have ended")
    with contextlib.suppress(TimeoutError):  # the checks tell what is left
        await _until(
            lambda: not any(agent.left_over() for agent in world.agents) and not living(world.run),
            60.0,
            "spools are empty",
        )


async def _look_at_the_host(world: World, evidence: Evidence) -> None:
    evidence.processes = described(living(world.run))
    evidence.left_over = {agent.name: agent.left_over() for agent in world.agents}


async def _stop(world: World) -> None:
    """Stop agents, then servers, as an operator would; nothing may stay."""
    for group in (world.agents, world.servers):
        codes = await asyncio.gather(*(actor.terminate() for actor in group))
        for actor, code in zip(group, codes, strict=True):
            if code != 0:
                text = f"exit code {code}\n{actor.program.complained()[-3000:]}"
                world.complain("stops when told", actor.name, text)
    with contextlib.suppress(TimeoutError):
        await _until(lambda: not world.launcher.marked(), 20.0, "nothing runs")
    for process in world.launcher.marked():
        with contextlib.suppress(psutil.Error):
            text = f"pid {process.pid}: {process.cmdline()}"
            world.complain("no process is left", "this host", text)


async def _until(question, within: float, what: str):
    """Wait for a true answer.

    Raises:
        TimeoutError: there was none in time.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + within
    while not (answer := question()):
        if loop.time() > give_up:
            raise TimeoutError(f"It took longer than {within:g} s until {what}.")
        await asyncio.sleep(0.05)
    return answer
