"""The pure core on its own: rules over memory, a clock moved by hand, no loop and no database."""

from itertools import count

from server.definition.times import CronTimes
from server.domain.canceling import CancelTask
from server.domain.claiming import Claim
from server.domain.controlling import SetAgentState
from server.domain.defining import CreatePipeline, Description
from server.domain.holding import Held
from server.domain.labels import Selector
from server.domain.lease import LeaseRef
from server.domain.log import LogLine
from server.domain.log_keeping import AppendLog, LooseLines
from server.domain.pipeline import Definition, Job, Stage
from server.domain.placement import Offer
from server.domain.policy import Policy
from server.domain.registering import Attach, LoseSession, Profile, Register
from server.domain.reporting import Report
from server.domain.submitting import CreateTask, NewTask
from server.domain.task import Queue, TaskSpec, TaskStatus
from server.domain.timing import RunTimers
from server.domain.triggering import Trigger, TriggerPipeline
from server.engine.explainer import Explainer
from server.engine.sessions import Sessions
from server.engine.writer import decide
from tests.fakes.clock import HandClock
from tests.fakes.expressions import PLAIN_EXPRESSIONS
from tests.fakes.memory_reader import MemoryReader
from tests.fakes.memory_source import MemoryDatabase

NAMESPACE = "default"
SPEC = TaskSpec(commands=("true",))


class Core:
    """A memory database, and short words for what is done to it."""

    def __init__(self, policy=None):
        self.database = MemoryDatabase()
        self.clock = HandClock()
        self.policy = policy or Policy()
        self.effects = None
        self._numbers = count(1)

    # ---- commands

    def batch(self, *commands):
        """Decide commands in one transaction; return an answer or a refusal for each."""
        committed = self.database.transact_now(
            lambda source: decide(
                commands,
                self.clock,
                self.policy,
                source,
                expressions=PLAIN_EXPRESSIONS,
                times=CronTimes(),
            )
        )
        self.effects = committed.effects
        return committed.answers

    def do(self, command):
        """Decide one command; return its answer or raise its refusal."""
        (answer,) = self.batch(command)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pass_time(self, milliseconds):
        """Let time pass, and what is due happen."""
        self.clock.advance(milliseconds)
        self.run_timers()

    def run_timers(self):
        """Let everything happen that is due."""
        while self.do(RunTimers()):
            pass

    # ---- looking

    @property
    def tables(self):
        return self.database.tables

    def task(self, task_id):
        """Return a task as it is stored."""
        return next(t for t in self.tables.tasks.values() if t.public_id == task_id)

    def attempt(self, task_id, number=None):
        """Return an attempt of a task as it is stored, the latest by default."""
        task = self.task(task_id)
        return self.tables.attempts[task.key, number or task.attempt]

    def agent(self, agent_id):
        return next(a for a in self.tables.agents.values() if a.public_id == agent_id)

    def run(self, run_id):
        return next(r for r in self.tables.runs.values() if r.public_id == run_id)

    def status(self, task_id):
        return self.task(task_id).status

    def explain(self, task_id):
        """Return why a task stands where it stands."""

        async def ask():
            reader = MemoryReader(self.database)
            explainer = Explainer(reader, Sessions(), self.clock, self.policy)
            return await explainer.explain(await reader.task(NAMESPACE, task_id))

        asking = ask()
        while True:  # it waits for nothing but its turn
            try:
                asking.send(None)
            except StopIteration as done:
                return done.value

    def events(self, kind=None, resource_id=None):
        """Return stored events, those of a kind or about something."""
        return [
            e
            for e in self.tables.events
            if kind in (None, e.kind) and resource_id in (None, e.resource_id)
        ]

    def lines(self, task_id, attempt=1):
        """Return (first line, how many) of each stored batch of a log."""
        key = self.task(task_id).key
        batches = [
            b for b in self.tables.logs.values() if (b.task_key, b.attempt) == (key, attempt)
        ]
        return sorted((b.block.first_line, b.block.lines) for b in batches)

    # ---- short words

    def create(self, task_id=None, **chosen):
        """Submit a task; return its id."""
        task_id = task_id or f"t{next(self._numbers)}"
        new = NewTask(**{"name": task_id, "spec": SPEC, **chosen})
        return self.do(CreateTask(NAMESPACE, task_id, new, "tester"))

    def join(self, agent_id="a", *, session=None, slots=1, held=(), v1=False, labels=None):
        """Register an agent."""
        profile = Profile(slots=slots, labels=labels or {})
        told = None if v1 else held if isinstance(held, Held) else Held(tuple(held))
        session = session or f"{agent_id}-{next(self._numbers)}"
        return self.do(Register(NAMESPACE, agent_id, session, profile, told))

    def offer(self, agent_id="a", *, slots=1, frame=1, session=None, request_id=None):
        """Return an agent's offer of slots for every class there is."""
        agent = self.agent(agent_id)
        return Offer(
            agent.key,
            agent_id,
            session or agent.session_id,
            slots,
            frozenset(self.tables.classes),
            frame,
            request_id,
        )

    def claim(self, agent_id="a", *, slots=1, frame=1, **offered):
        """Hand work to an agent; return the assignments."""
        offer = self.offer(agent_id, slots=slots, frame=frame, **offered)
        return self.do(self.claim_of(offer)).assignments.get(offer.session_id, [])

    def claim_of(self, *offers):
        """Return the claim of these offers that looks everywhere."""
        queues = {Queue(task.class_key, task.namespace) for task in self.tables.tasks.values()}
        return Claim(offers, tuple(sorted(queues)))

    def leased(self, agent_id="a", **chosen):
        """Submit a task and hand it to an agent; return (task id, its lease)."""
        task_id = self.create(**chosen)
        (given,) = self.claim(agent_id)
        assert given.task_id == task_id
        return task_id, LeaseRef(task_id, given.lease_id)

    def running(self, agent_id="a", **chosen):
        """Submit a task, hand it to an agent and have it started; return (task id, its lease)."""
        task_id, lease = self.leased(agent_id, **chosen)
        self.report(lease, TaskStatus.RUNNING, agent_id=agent_id)
        return task_id, lease

    def report(self, lease, status, *, agent_id="a", **more):
        """Report how a task goes; return the verdict's action."""
        return self.do(Report(agent_id, lease, status, **more)).action

    def append(self, lease, first_line, texts, *, agent_id="a"):
        """Append log lines; return the answer."""
        lines = tuple(LogLine(0, "stdout", "info", text) for text in texts)
        return self.do(AppendLog(agent_id, lease, LooseLines(first_line, lines)))

    def hold(self, *leases, agent_id="a", seen_through=0, complete=False):
        """Tell what an agent holds; return the verdicts' actions."""
        session = self.agent(agent_id).session_id
        held = Held(leases, seen_through)
        attached = self.do(Attach(agent_id, session, held, complete))
        return [v.action for v in attached.verdicts]

    def lose(self, agent_id="a"):
        """Give an agent up; return whether it was."""
        agent = self.agent(agent_id)
        return self.do(LoseSession(agent_id, agent.session_id, agent.last_seen))

    def control(self, agent_id, action, **more):
        """Pause, drain or resume an agent; return it and how many leases it holds."""
        return self.do(SetAgentState(NAMESPACE, agent_id, action, **more))

    def cancel(self, task_id, **more):
        return self.do(CancelTask(NAMESPACE, task_id, **more))

    def pipeline(self, *stages, name="build", **chosen):
        """Store a pipeline; return its id."""
        pipeline_id = f"p{next(self._numbers)}"
        wanted = Description(name, Definition(stages, **chosen))
        return self.do(CreatePipeline(NAMESPACE, pipeline_id, wanted))

    def trigger(self, pipeline_id, **chosen):
        """Start a run; return its id and the ids of its tasks."""
        run_id = f"00000000-0000-7000-8000-0000{next(self._numbers):02x}000000"
        run_id, *tasks = self.do(TriggerPipeline(NAMESPACE, pipeline_id, run_id, Trigger(**chosen)))
        return run_id, tasks


def v1(lease):
    """Return a lease as a v1 agent names it."""
    return LeaseRef(lease.task_id, "")


def job(name, *depends_on, **chosen):
    """Return a job of a pipeline."""
    return Job(name, ("true",), depends_on=depends_on, **chosen)


def serial(name, *jobs):
    """Return a stage whose jobs follow one another."""
    return Stage(name, jobs)


def parallel(name, *jobs):
    """Return a stage whose jobs start together."""
    return Stage(name, jobs, parallel=True)


def needs(**labels):
    """Return a selector."""
    return Selector.of(labels)
