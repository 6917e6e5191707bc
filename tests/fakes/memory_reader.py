"""The reads that loops make, over the memory database; see stores.interfaces.Reader."""

import asyncio
from collections import Counter
from dataclasses import replace

from server.domain.agent import SessionState
from server.domain.attempt import AttemptStatus, LogState
from server.domain.errors import NotFound
from server.domain.task import TaskStatus
from server.domain.waiting import Crowd, RunTurn
from server.stores.interfaces import (
    AgentStanding,
    Backlog,
    GroupWaits,
    LiveSession,
    LogPage,
    LogPlace,
    TaskView,
)
from server.stores.log_blocks import PAGE_BYTES, PageOfLines, first_since


class MemoryReader:
    """Each read sees the state at its beginning and takes `seconds`."""

    def __init__(self, database, seconds=0.0):
        self._database = database
        self.seconds = seconds

    async def _tables(self):
        tables = self._database.tables
        await asyncio.sleep(self.seconds)
        return tables

    async def log(self, namespace, task_id, attempt, first_line, limit, size=PAGE_BYTES):
        tables = await self._tables()
        task = next((t for t in tables.tasks.values() if t.public_id == task_id), None)
        if task is None or task.namespace != namespace:
            raise NotFound("task", task_id)
        number = attempt or task.attempt
        if number > task.attempt:
            raise NotFound("attempt", f"{task_id}/{number}")
        if not number:
            state = LogState.COMPLETE if task.status.ended else LogState.OPEN
            return LogPage(0, 1, [], 0, state, task.status.ended, 0, given_up=False)
        row = tables.attempts[task.key, number]
        return LogPage(
            number,
            first_line,
            _lines(tables, (task.key, number), PageOfLines(first_line, limit, size)),
            row.log_lines,
            row.log_state,
            task.status.ended,
            task.attempt,
            given_up=row.status in (AttemptStatus.LOST, AttemptStatus.RELEASED),
            key=(task.key, number),
        )

    async def more_of_log(self, page, first_line, limit):
        tables = await self._tables()
        lines = _lines(tables, page.key, PageOfLines(first_line, limit, PAGE_BYTES))
        total = max(page.total, first_line + len(lines) - 1)
        return replace(page, first_line=first_line, lines=lines, total=total)

    async def log_place(self, namespace, task_id, attempt, tail, since):
        page = await self.log(namespace, task_id, attempt, 1, 0)
        if not page.attempt:
            return LogPlace(0, 1)
        line = max(1, page.total - tail + 1) if tail else 1
        if since:
            task = next(t for t in self._database.tables.tasks.values() if t.public_id == task_id)
            blocks = _blocks(self._database.tables, task.key, page.attempt)
            late = (first_since(each, since) for each in blocks if each.last_at >= since)
            line = max(line, next(late, page.total + 1))
        return LogPlace(page.attempt, line)

    async def task(self, namespace, task_id):
        tables = await self._tables()
        task = next((t for t in tables.tasks.values() if t.public_id == task_id), None)
        if task is None or task.namespace != namespace:
            raise NotFound("task", task_id)
        needs = [tables.tasks[n] for key, n in sorted(tables.dependencies) if key == task.key]
        agent = tables.agents.get(task.last_agent)
        return TaskView(
            task,
            [a for key, a in sorted(tables.attempts.items()) if key[0] == task.key],
            [(need.public_id, need.name, int(need.status)) for need in needs],
            agent.effective_labels if agent else {},
            tables.classes[task.class_key],
            self._crowd_around(tables, task),
            tables.gates.get(task.gate),
            self._turn_of_run(tables, task),
        )

    def _turn_of_run(self, tables, task):
        run = tables.runs.get(task.run_key)
        if run is None or run.turn is None or run.turn != task.gate:
            return None
        others = [
            (other.public_id, other.number)
            for _, other in sorted(tables.runs.items())
            if (other.namespace, other.group_key) == (run.namespace, run.group_key)
            and other.turn is None
            and other.finished_at is None
        ]
        return RunTurn(run.group_key, others[:5])

    def _crowd_around(self, tables, task):
        if task.group_key is None:
            return None
        group = (task.namespace, task.group_key)
        every = sorted(tables.tasks.values(), key=lambda each: each.key)
        holders = [t for t in every if t.holds_place and (t.namespace, t.group_key) == group]
        named = [(each.public_id, each.name) for each in holders[:5]]
        return Crowd(task.group_key, tables.groups[group], named, len(holders))

    async def connected_agents(self):
        tables = await self._tables()
        held = Counter(task.lease_agent for task in tables.tasks.values())
        live = [a for a in tables.agents.values() if a.session_state is SessionState.LIVE]
        return [(agent, held[agent.key]) for agent in sorted(live, key=lambda a: a.public_id)]

    async def ready_before(self, task, limit):
        tables = await self._tables()
        place = (task.sort_key, task.key)
        ready = [t for t in tables.tasks.values() if t.ready]
        mine = [t for t in ready if t.namespace == task.namespace]
        before = Counter(t.class_key for t in mine if (t.sort_key, t.key) < place)
        others = Counter(t.class_key for t in ready if t.namespace != task.namespace)
        return [
            (tables.classes[key], min(before[key], limit), min(others[key], limit))
            for key in sorted(before.keys() | others.keys())
        ]

    async def events(self, after, limit):
        tables = await self._tables()
        return [event for event in tables.events if event.position > after][:limit]

    async def oldest_cursor(self):
        tables = await self._tables()
        return tables.events[0].position - 1 if tables.events else tables.position

    async def runs_with_position(self, wanted, limit):
        tables = await self._tables()
        found = [
            (run, tables.pipelines[run.pipeline_key].name)
            for _, run in sorted(tables.runs.items())
            if run.namespace == wanted.namespace
            and (not wanted.pipeline_ids or run.pipeline_id in wanted.pipeline_ids)
            and (run.public_id in wanted.run_ids if wanted.run_ids else run.finished_at is None)
        ]
        return found[:limit], tables.position

    async def agents_with_position(self, namespace, agent_ids):
        tables = await self._tables()
        running = Counter(
            task.lease_agent
            for task in tables.tasks.values()
            if task.lease_agent is not None and task.status is TaskStatus.RUNNING
        )
        agents = sorted(tables.agents.values(), key=lambda agent: agent.public_id)
        found = [
            AgentStanding(agent, running[agent.key])
            for agent in agents
            if agent.namespace == namespace and (not agent_ids or agent.public_id in agent_ids)
        ]
        return found, tables.position

    async def last_position(self):
        return (await self._tables()).position

    async def measured(self):
        agents = (await self._tables()).agents.values()
        live = [agent for agent in agents if agent.session_state is SessionState.LIVE]
        return {agent.public_id: agent.measured for agent in live if agent.measured}

    async def live_sessions(self):
        tables = await self._tables()
        live = [a for a in tables.agents.values() if a.session_state is SessionState.LIVE]
        return [LiveSession(a.public_id, a.session_id, a.last_seen, a.lease) for a in live]

    async def ready_queues(self):
        tables = await self._tables()
        ready = {task.queue for task in tables.tasks.values() if task.ready}
        return {queue: tables.classes[queue.class_key] for queue in ready}

    async def backlogs(self, queues, limit, oldest_among):
        tables = await self._tables()
        found = {}
        for queue in queues:
            ready = [t for t in tables.tasks.values() if t.ready and t.queue == queue]
            ready.sort(key=lambda task: (task.sort_key, task.key))
            if ready:
                oldest = min(task.ready_at or task.created_at for task in ready[:oldest_among])
                found[queue] = Backlog(min(len(ready), limit), oldest)
        return found

    async def group_waits(self, limit):
        tables = await self._tables()
        waiting = [task for task in tables.tasks.values() if task.awaits_place]
        counts = Counter((task.namespace, task.group_key) for task in waiting)
        return GroupWaits(sum(min(count, limit) for count in counts.values()), len(counts))

    async def class_text(self, class_keys):
        tables = await self._tables()
        return {key: tables.classes[key] for key in class_keys if key in tables.classes}

    async def next_due(self):
        tables = await self._tables()
        dues = [task.due_at for task in tables.tasks.values()]
        dues += [attempt.log_due for attempt in tables.attempts.values()]
        dues += [agent.due_at for agent in tables.agents.values()]
        dues += [schedule.due_at for schedule in tables.schedules.values()]
        return min((due for due in dues if due is not None), default=None)


def _lines(tables, key, wanted):
    for block in _blocks(tables, *key):
        if block.last_line >= wanted.first_line and not wanted.full:
            wanted.take(block)
    return wanted.lines


def _blocks(tables, task_key, number):
    """Return the blocks of an attempt's log."""
    return [b.block for k, b in sorted(tables.logs.items()) if k[:2] == (task_key, number)]
