"""The engine over memory, in virtual time: writer, dispatcher, sessions, and what they need."""

import asyncio
from contextlib import asynccontextmanager

from server.domain.holding import Held
from server.domain.lease import LeaseRef
from server.domain.registering import Profile, Register
from server.domain.reporting import Report
from server.domain.submitting import CreateTask, NewTask
from server.domain.task import TaskStatus
from server.engine.attendance import Attendance
from server.engine.dispatcher import Dispatcher
from server.engine.mailbox import Mailbox
from server.engine.parked import Parked
from server.engine.sessions import Sessions
from server.engine.writer import Writer
from tests.fakes.clock import LoopClock
from tests.fakes.core import NAMESPACE, SPEC, Core
from tests.fakes.memory_reader import MemoryReader
from tests.fakes.memory_source import MemoryDatabase

COMMIT_SECONDS = 0.01


class SlowDatabase(MemoryDatabase):
    """Takes its time over each commit, and fails when told to."""

    def __init__(self):
        super().__init__()
        self.seconds = COMMIT_SECONDS
        self.failures = []
        """What the next transactions raise, after their work was decided; None lets one pass."""
        self.commits = 0

    async def transact(self, work):
        await asyncio.sleep(self.seconds)
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        self.commits += 1
        return self.transact_now(work)


class NoClaims:
    """For a writer alone: nobody hands out work."""

    def offer(self, _batch):
        return None

    def claimed(self, _claim, _answer):
        raise AssertionError("nothing was offered")


class Shop(Core):
    """Core's short words for looking, over an engine at work."""

    def __init__(self, *, batch_limit=100, queue_limit=1000, policy=None):
        super().__init__(policy)
        self.database = SlowDatabase()
        self.clock = LoopClock()
        self.reader = MemoryReader(self.database)
        self.sessions = Sessions()
        self.dispatcher = Dispatcher(self.sessions, self.clock)
        self.writer = Writer(
            self.database,
            self.clock,
            self.policy,
            self.dispatcher,
            batch_limit=batch_limit,
            queue_limit=queue_limit,
        )
        self.dispatcher.kick = self.writer.kick
        self.attendance = Attendance(
            self.writer, self.sessions, self.dispatcher, self.clock, self.policy
        )
        self.writer.listen(self.dispatcher.committed)
        self.writer.listen(self.attendance.committed)

    @asynccontextmanager
    async def open(self, *loops):
        """Run the writer, the dispatcher and other loops."""
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(self.writer.run())
            others = [
                tasks.create_task(self.dispatcher.run(self.reader, self.writer, shared=False))
            ]
            others += [tasks.create_task(loop) for loop in loops]
            yield tasks
            for other in others:
                other.cancel()
            self.writer.stop()
            await writing

    # ---- people and agents

    async def submit(self, task_id, **chosen):
        """Submit a task."""
        new = NewTask(task_id, SPEC, **chosen)
        return await self.writer.submit(CreateTask(NAMESPACE, task_id, new, ""), new_work=True)

    async def arrive(self, agent_id, *, slots=1, labels=None, v1=False, pushes=True):
        """Register an agent; with `pushes` it opens a stream. Return its session."""
        profile = Profile(slots=slots, labels=labels or {})
        held = None if v1 else Held()
        command = Register(NAMESPACE, agent_id, f"{agent_id}-session", profile, held)
        session, _ = await self.attendance.register(command)
        if pushes:
            mailbox = Mailbox(pushes=True)
            await self.attendance.open_stream(agent_id, session.session_id, Held(), mailbox)
        return session

    def fetching(self, session, wait, *, want=1, request_id=None, once=False):
        """Return a FetchTask to wait for."""
        parked = Parked(want, request_id, once=once)
        return self.dispatcher.fetch(session, parked, wait)

    async def tell(self, agent_id, given, status=TaskStatus.SUCCESS):
        """Report how an assignment went."""
        lease = LeaseRef(given.task_id, given.lease_id)
        return await self.writer.submit(Report(agent_id, lease, status))
