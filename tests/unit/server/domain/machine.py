"""A random world around the pure core: agents, their messages in flight, users, and time.

The world keeps its own book of what really happened (which execution reported what); the core is
judged by it after every step. At the end the world becomes kind: everything must come to an end.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.domain.agent import Scheduling, SessionState, next_agent_due
from server.domain.attempt import AttemptStatus, next_log_due
from server.domain.canceling import CancelTask, StopPipeline
from server.domain.claiming import HandBack
from server.domain.controlling import Action, SetAgentState
from server.domain.errors import MusterError, NotLeaseHolder, SessionSuperseded
from server.domain.event import EventKind
from server.domain.group import Membership
from server.domain.holding import Held
from server.domain.labels import Selector
from server.domain.lease import LeaseRef, VerdictAction
from server.domain.log import LogLine
from server.domain.log_keeping import AppendLog, LooseLines
from server.domain.placement import Offer
from server.domain.pruning import PruneTasks
from server.domain.registering import Attach, LoseSession, Profile, Register, Unregister
from server.domain.reporting import Report
from server.domain.run import RunStatus, status_of
from server.domain.submitting import DeleteTask, RetryTask, UpdateTask
from server.domain.task import TaskStatus, next_due
from tests.fakes.core import NAMESPACE, Core, job, needs, parallel, serial

HOUR = 3_600_000
PICK = st.integers(0, 10_000)
LEAPS = st.sampled_from([1, 700, 2_000, 2_000, 10_000, 31_000, 61_000, 200_000])
LOST = "lost"
"""An end whose cause is the agent's own: it reports that its process died under the task."""
STOPPED = "stopped"
"""An end that its agent brought about because it was told to stop."""
ENDS = st.sampled_from(
    [TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.TIMEOUT, TaskStatus.CANCELLED, LOST, STOPPED]
)
WISHES = ["cancel", "cancel", "retry", "delete", "update", "stop", "prune"]
FATES = WAITING, STARTED, ENDING, ENDED = range(4)
OWN = ("own-0", "own-1", "own-2")
V1 = ("v1-0", "v1-1")


@dataclass(eq=False)
class Execution:
    """One copy of a task running on some host."""

    lease: LeaseRef
    """The real one; v1 agents do not know its id."""
    expires: int
    """When its agent has certainly killed it."""
    code: int | None = None
    """Its exit code, unlike any other, once it has ended."""


@dataclass(eq=False)
class Process:
    """An agent's process: what it believes."""

    agent_id: str
    session: str
    v1: bool
    slots: int
    runs: dict = field(default_factory=dict)
    inbox: list = field(default_factory=list)
    frame: int = 0
    seen_through: int = 0

    def named(self, execution):
        lease = execution.lease
        return LeaseRef(lease.task_id, "") if self.v1 else lease

    def held(self):
        return Held(tuple(run.lease for run in self.runs.values()), self.seen_through)


@dataclass(eq=False)
class Message:
    """A call on its way to the server."""

    command: object
    process: Process
    execution: Execution | None = None


class World(RuleBasedStateMachine):
    """See the module."""

    STAFF = ("own-0", "own-1", "v1-0")
    """Agents that are there from the start."""

    def __init__(self):
        super().__init__()
        self.core = Core()
        self.processes = {}
        self.gone = []
        """Processes that were replaced and do not know it yet."""
        self.post = []
        self.codes = {}
        """Lease id → exit codes that its execution has really reported."""
        self.known = set()
        """Tasks whose submission was acknowledged, minus those whose deletion was."""
        self.deleted = set()
        self.ended = {}
        """Rows of ended tasks as they were when they ended."""
        self.statuses = {}
        self.run_statuses = {}
        self.running = Counter()
        """Tasks each agent runs, as events tell it."""
        self.limits = {}
        """The newest limit of each concurrency group."""
        self.holders = {}
        """Who held a place in each group after the last step."""
        self.read = 0
        self.position = 0
        self.numbers = 0
        self.pipelines = [
            self.core.pipeline(
                serial("one", job("a"), job("b", retry=1)),
                parallel("two", job("c"), job("d", "c", allow_failure=True), job("e")),
                name="staged",
            ),
            self.core.pipeline(
                parallel("all", *(job(f"j{n}", retry=n % 2) for n in range(3))), name="wide"
            ),
        ]

        for agent_id in self.STAFF:
            self._join(agent_id, 2, survives=False, ssd=True, v1=agent_id in V1)
        for retry in range(3):
            self._submit((), retry_count=retry + 1)
        self.trigger_run(0)

    # ---- help

    def number(self):
        self.numbers += 1
        return self.numbers

    def attempt_to(self, command):
        """Do what may be refused; return the answer or the refusal."""
        (answer,) = self.core.batch(command)
        return answer

    def one_of(self, things, pick):
        things = list(things)
        return things[pick % len(things)]

    def task_ids(self):
        return sorted(self.known)

    def executions(self):
        return [(p, run) for p in self.processes.values() for run in p.runs.values()]

    def send(self, command, process, execution=None, *, late=True, again=False):
        """Put a call on its way; it arrives now or some time, and perhaps again."""
        message = Message(command, process, execution)
        if late or again:
            self.post.append(message)
        if not late:
            self._arrive(message)
            if again:
                self._arrive(message)

    # ---- users

    @precondition(lambda self: len(self.known) < 40)
    @rule(
        needed=st.lists(PICK, max_size=3),
        retry=st.integers(0, 2),
        allow_failure=st.booleans(),
        fragile=st.integers(0, 9),
        special=st.booleans(),
    )
    def submit(self, needed, retry, allow_failure, fragile, special):
        ids = self.task_ids()
        self._submit(
            tuple(self.one_of(ids, n) for n in needed if ids),
            retry_count=retry,
            allow_failure=allow_failure,
            retry_on_lost=fragile != 0,
            selector=needs(disk="ssd") if special else needs(),
        )

    @precondition(lambda self: len(self.known) < 40)
    @rule(
        needed=st.lists(PICK, max_size=1),
        priority=st.integers(0, 9),
        patience=st.sampled_from([0, 5, 90]),
    )
    def hurry(self, needed, priority, patience):
        ids = self.task_ids()
        self._submit(
            tuple(self.one_of(ids, n) for n in needed if ids),
            priority=priority,
            schedule_to_start=patience,
        )

    def _submit(self, depends_on, **chosen):
        self.known.add(self.core.create(depends_on=depends_on, timeout=60, **chosen))

    @precondition(lambda self: len(self.known) < 40)
    @rule(
        key=st.sampled_from("gh"),
        limit=st.integers(1, 3),
        cancels=st.integers(0, 3),
        needed=st.lists(PICK, max_size=1),
        retry=st.integers(0, 1),
        priority=st.sampled_from([5, 5, 9]),
    )
    def gather(self, key, limit, cancels, needed, retry, priority):
        """A task joins a concurrency group, whose limit is what it says."""
        ids = self.task_ids()
        self._submit(
            tuple(self.one_of(ids, n) for n in needed if ids),
            group=Membership(key, limit, cancels_older=not cancels),
            retry_count=retry,
            priority=priority,
        )
        self.limits[key] = limit

    @precondition(lambda self: len(self.known) < 30)
    @rule(pick=PICK)
    def trigger(self, pick):
        self.trigger_run(pick)

    def trigger_run(self, pick):
        _, tasks = self.core.trigger(self.one_of(self.pipelines, pick))
        self.known.update(tasks)

    @precondition(lambda self: self.known)
    @rule(
        wish=st.sampled_from(["cancel", "cancel", "retry", "delete", "update", "stop"]), pick=PICK
    )
    def wish(self, wish, pick):
        task_id = self.one_of(self.task_ids(), pick)
        getattr(self, f"_{wish}")(task_id)

    def _cancel(self, task_id):
        self.attempt_to(CancelTask(NAMESPACE, task_id, "stop"))

    def _stop(self, task_id):
        pipeline_id = self.core.task(task_id).pipeline_id
        if pipeline_id is not None:
            self.core.do(StopPipeline(NAMESPACE, pipeline_id))

    def _delete(self, task_id):
        if self.attempt_to(DeleteTask(NAMESPACE, task_id)) is None:
            self.known.discard(task_id)
            self.deleted.add(task_id)

    def _retry(self, task_id):
        new_id = f"again-{self.number()}"
        if self.attempt_to(RetryTask(NAMESPACE, task_id, new_id, "tester")) == new_id:
            self.known.add(new_id)

    def _prune(self, _):
        """The past goes: ended tasks that nobody needs, without a word about each."""
        before = self.core.clock.now() - 60_000
        self.core.do(PruneTasks(before))
        left = {task.public_id: task for task in self.core.tables.tasks.values()}
        for task_id in self.known - left.keys():
            assert self.ended[task_id].finished_at < before
            del self.statuses[task_id]
            self.known.discard(task_id)
            self.deleted.add(task_id)

    def _update(self, task_id):
        before = self.core.task(task_id)
        done = self.attempt_to(UpdateTask(NAMESPACE, task_id, name="renamed"))
        assert (done is None) is not (before.status.ended or before.leased)

    # ---- agents come and go

    @rule(
        agent_id=st.sampled_from(OWN),
        slots=st.integers(1, 3),
        survives=st.booleans(),
        ssd=st.booleans(),
    )
    def join(self, agent_id, slots, survives, ssd):
        """An agent of ours starts, or its session restarts over what its supervisor kept."""
        self._join(agent_id, slots, survives, ssd, v1=False)

    @rule(agent_id=st.sampled_from(V1), slots=st.integers(1, 2), survives=st.booleans())
    def join_v1(self, agent_id, slots, survives):
        self._join(agent_id, slots, survives, ssd=True, v1=True)

    def _join(self, agent_id, slots, survives, ssd, *, v1):
        older = self.processes.get(agent_id)
        process = Process(agent_id, f"s{self.number()}", v1, slots)
        if older is not None:
            if survives:
                process.runs = dict(older.runs)
            if not v1:
                self.gone.append(older)
        profile = Profile(slots=slots, labels={"disk": "ssd"} if ssd else {})
        held = None if v1 else process.held()
        command = Register(NAMESPACE, agent_id, process.session, profile, held)
        attached = self.core.do(command)
        self.processes[agent_id] = process
        self._heed(process, attached)

    def _heed(self, process, attached):
        """Take in an answer to Register, stream open or heartbeat."""
        key = attached.agent.key
        tasks = self.core.tables.tasks.values()
        assert attached.leases == {t.lease_id: t.lease_frame for t in tasks if t.lease_agent == key}
        for verdict in attached.verdicts:
            if verdict.action is VerdictAction.SUPERSEDED:
                assert verdict.lease_id not in attached.leases
                process.runs.pop(verdict.lease_id, None)

    @precondition(lambda self: self.processes)
    @rule(pick=PICK, comes_back=st.booleans(), passes=st.sampled_from([0, 1_000, 100_000]))
    def blink(self, pick, comes_back, passes):
        """An agent is given up, and perhaps heard again: as if nothing had been, or too late."""
        process = self.one_of(self.processes.values(), pick)
        agent = self.core.agent(process.agent_id)
        self.core.do(LoseSession(agent.public_id, process.session, agent.last_seen))
        if passes:
            self.core.pass_time(passes)
            self._forget_late()
        if comes_back:
            held = None if process.v1 else process.held()
            self._attach(Attach(process.agent_id, process.session, held), process)

    @precondition(lambda self: self.processes)
    @rule(pick=PICK)
    def leave(self, pick):
        process = self.one_of(self.processes.values(), pick)
        self.core.do(Unregister(process.agent_id, process.session, "done"))
        del self.processes[process.agent_id]
        self.gone.append(process)

    @precondition(lambda self: self.processes)
    @rule(pick=PICK, action=st.sampled_from(Action), deadline=st.sampled_from([None, 0, 30]))
    def control(self, pick, action, deadline):
        """An operator has a word about an agent."""
        agent_id = self.one_of(self.processes, pick)
        deadline = deadline if action is Action.DRAIN else None
        agent, _ = self.core.do(SetAgentState(NAMESPACE, agent_id, action, deadline=deadline))
        assert agent.open is (action is Action.RESUME)
        assert agent.faults == 0 or action is not Action.RESUME

    # ---- work goes out

    @rule(
        chosen=st.lists(PICK, min_size=1, max_size=4),
        more=st.integers(0, 1),
        arrives=st.integers(0, 4),
    )
    def dispatch(self, chosen, more, arrives):
        self._dispatch(chosen, more, arrives)

    @rule(
        chosen=st.lists(PICK, min_size=1, max_size=4),
        fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=4),
        end=ENDS,
        again=st.booleans(),
    )
    def work(self, chosen, fates, end, again):
        """Work goes out, and each task of it comes as far as its fate will have it."""
        known = {id(run) for _, run in self.executions()}
        self._dispatch(chosen, 0, arrives=True)
        fresh = [pair for pair in self.executions() if id(pair[1]) not in known]
        for place, (process, run) in enumerate(fresh):
            fate = fates[place % len(fates)]
            if fate >= STARTED:
                self._start(process, run, late=False, again=again)
            if fate >= ENDING:
                self._finish(process, run, end, late=fate == ENDING, again=again)

    def _dispatch(self, chosen, more, arrives):
        """Offers come from memory: of sessions long gone, and of more slots than there are."""
        everybody = [*self.processes.values(), *self.gone[-1:]]
        if not everybody:
            return
        offering = {p.session: p for p in (self.one_of(everybody, n) for n in chosen)}
        waiting = self._in_line()
        claimed = self.core.do(
            self.core.claim_of(*(self._offer(p, more) for p in offering.values()))
        )
        if not any(process.v1 for process in offering.values()):
            self._nobody_was_overtaken(waiting)
        for session, assignments in claimed.assignments.items():
            process = offering[session]
            agent = self.core.agent(process.agent_id)
            assert agent.session_id == session
            assert agent.session_state is SessionState.LIVE
            assert agent.open, "work for an agent that is given none"
            assert self._leases(agent) <= agent.slots, "an agent over its slots"
            if process.v1:
                self._nobody_is_heard_of_twice(agent, assignments)
            process.inbox.append((process.frame, assignments, self.core.clock.now()))
            if arrives and process in self.processes.values():
                self._receive(process)

    def _nobody_is_heard_of_twice(self, agent, assignments):
        """A v1 agent gets no task of which it may still report an earlier run that was lost."""
        policy = self.core.policy
        for given in assignments:
            task = self.core.task(given.task_id)
            for number in range(1, task.attempt):
                tried = self.core.attempt(given.task_id, number)
                lost = tried.status is AttemptStatus.LOST and not tried.reported
                if tried.agent_key == agent.key and lost and not tried.session:
                    heard = task.timeout + policy.kill_grace + policy.deadline_slack
                    assert self.core.clock.now() >= tried.ended_at + heard, task

    def _in_line(self):
        """Return the keys of ready tasks by class, in the order in which they are to go out."""
        ready = [task for task in self.core.tables.tasks.values() if task.ready]
        ready.sort(key=lambda task: (task.created_at - task.priority * 600_000, task.key))
        classes = {task.class_key for task in ready}
        return {name: [t.key for t in ready if t.class_key == name] for name in classes}

    def _nobody_was_overtaken(self, waiting):
        left = {task.key for task in self.core.tables.tasks.values() if task.ready}
        for line in waiting.values():
            still = [key in left for key in line]
            assert still == sorted(still), "a task was overtaken"

    def _offer(self, process, more):
        process.frame += 1
        agent = self.core.agent(process.agent_id)
        labels = agent.effective_labels
        fitting = [key for key, text in self.core.tables.classes.items() if _fits(text, labels)]
        slots = process.slots + more
        classes = frozenset(fitting)
        return Offer(
            agent.key, process.agent_id, process.session, slots, classes, frame=process.frame
        )

    def _leases(self, agent):
        return sum(task.lease_agent == agent.key for task in self.core.tables.tasks.values())

    def _with_mail(self):
        return [p for p in self.processes.values() if p.inbox]

    @precondition(lambda self: self._with_mail())
    @rule(pick=PICK)
    def receive(self, pick):
        self._receive(self.one_of(self._with_mail(), pick))

    def _receive(self, process):
        frame, assignments, claimed_at = process.inbox.pop(0)
        now = self.core.clock.now()
        if process.v1 and now > claimed_at + self.core.policy.claim_to_start:
            return  # its call has long been given up
        process.seen_through = frame
        for given in assignments:
            lease = LeaseRef(given.task_id, given.lease_id)
            process.runs[given.lease_id] = Execution(lease, now + given.timeout)

    @precondition(lambda self: self._with_mail())
    @rule(pick=PICK, noticed=st.booleans())
    def lose_frame(self, pick, noticed):
        """An assignment never arrives; the server notices when the call that asked is gone."""
        process = self.one_of(self._with_mail(), pick)
        lost = [given for _, assignments, _ in process.inbox for given in assignments]
        process.inbox.clear()
        if noticed:
            leases = tuple(LeaseRef(given.task_id, given.lease_id) for given in lost)
            self.core.do(HandBack(process.agent_id, leases))

    # ---- executions, and what is said about them

    @precondition(lambda self: self.executions())
    @rule(pick=PICK, late=st.booleans(), again=st.booleans())
    def start(self, pick, late, again):
        self._start(*self.one_of(self.executions(), pick), late=late, again=again)

    def _start(self, process, run, *, late, again):
        command = Report(process.agent_id, process.named(run), TaskStatus.RUNNING)
        self.send(command, process, run, late=late, again=again)

    @precondition(lambda self: self.executions())
    @rule(
        pick=PICK,
        end=ENDS,
        late=st.booleans(),
        again=st.booleans(),
    )
    def finish(self, pick, end, late, again):
        process, run = self.one_of(self.executions(), pick)
        self._finish(process, run, end, late=late, again=again)

    def _finish(self, process, run, end, *, late, again):
        if run.code is not None:
            return
        run.code = self.number()
        self.codes.setdefault(run.lease.lease_id, set()).add(run.code)
        status = TaskStatus.FAILED if end in (LOST, STOPPED) else end
        named = process.named(run)
        command = Report(
            process.agent_id,
            named,
            status,
            run.code,
            infrastructure=end is LOST and not process.v1,
            released=end is STOPPED and not process.v1,
        )
        self.send(command, process, run, late=late, again=again)

    @precondition(lambda self: self.executions())
    @rule(pick=PICK, first=st.integers(0, 4), count=st.integers(1, 3))
    def print_lines(self, pick, first, count):
        process, run = self.one_of(self.executions(), pick)
        lines = tuple(LogLine(1, "stdout", "info", f"line {n}") for n in range(count))
        first = 0 if process.v1 else first
        self.send(
            AppendLog(process.agent_id, process.named(run), LooseLines(first, lines)), process, run
        )

    @precondition(lambda self: self.processes)
    @rule(pick=PICK, opens=st.booleans())
    def beat(self, pick, opens):
        """A heartbeat leaves now and arrives some time; a stream is opened at once."""
        process = self.one_of([*self.processes.values(), *self.gone[-1:]], pick)
        held = None if process.v1 else process.held()
        command = Attach(process.agent_id, process.session, held, complete=opens)
        if not opens:
            self.send(command, process)
            return
        if not process.v1:
            process.inbox.clear()  # the older stream is dropped first
        self._attach(command, process)

    def _attach(self, command, process):
        answer = self.attempt_to(command)
        agent = self.core.agent(process.agent_id)
        superseded = agent.session_id != process.session
        if superseded or agent.session_state is SessionState.CLOSED:
            assert isinstance(answer, SessionSuperseded)
            self.gone = [p for p in self.gone if p is not process]
        else:
            self._heed(process, answer)

    @precondition(lambda self: self.executions())
    @rule(pick=PICK, end=ENDS)
    def overtake(self, pick, end):
        """An end is on its way while its agent is lost, comes back empty and gets new work."""
        process, run = self.one_of(self.executions(), pick)
        if run.code is not None:
            return
        self._finish(process, run, end, late=True, again=False)
        message = self.post.pop()
        agent = self.core.agent(process.agent_id)
        self.core.do(LoseSession(agent.public_id, process.session, agent.last_seen))
        del process.runs[run.lease.lease_id]
        held = None if process.v1 else process.held()
        self._attach(Attach(process.agent_id, process.session, held), process)
        self._dispatch([list(self.processes).index(process.agent_id)], 0, arrives=True)
        self._arrive(message)

    @precondition(lambda self: self.post)
    @rule(picks=st.lists(PICK, min_size=1, max_size=4), again=st.booleans())
    def deliver(self, picks, again):
        """Any messages arrive, in any order, perhaps again later."""
        for pick in picks[: len(self.post)]:
            message = self.post.pop(pick % len(self.post))
            if again:
                self.post.append(message)
            self._arrive(message)

    def _arrive(self, message):
        if message.execution is None:
            self._attach(message.command, message.process)
        elif isinstance(message.command, Report):
            self._deliver_report(message)
        elif self._can_arrive(message):
            self.attempt_to(message.command)

    def _can_arrive(self, message):
        """A v1 agent takes a task up again only when its calls about it are over.

        That is known of ends it reported itself. Of attempts that were lost it is not.
        """
        lease = message.execution.lease
        if not message.process.v1 or lease.task_id not in self.known:
            return True
        task = self.core.task(lease.task_id)
        if task.last_agent_id != message.process.agent_id or task.lease_id == lease.lease_id:
            return True
        number = int(lease.lease_id.rpartition(".")[2])
        return self.core.attempt(lease.task_id, number).status is AttemptStatus.LOST

    def _deliver_report(self, message):
        process, run = message.process, message.execution
        if not self._can_arrive(message):
            return
        before = self._about(run)
        accepted = self._should_count(process, run)
        answer = self.attempt_to(message.command)
        ends = message.command.status.ended
        if not accepted:
            assert self._about(run) == before, "a report without standing changed something"
        elif isinstance(answer, MusterError):
            raise AssertionError(f"the holder was refused: {answer}")
        else:
            assert answer.action is not VerdictAction.SUPERSEDED, "the holder was superseded"
        stop = isinstance(answer, MusterError) or answer.action is VerdictAction.SUPERSEDED
        if stop or ends:
            process.runs.pop(run.lease.lease_id, None)
        if isinstance(answer, MusterError):
            assert process.v1 or run.lease.task_id in self.deleted
            assert isinstance(answer, NotLeaseHolder) or run.lease.task_id in self.deleted

    def _about(self, run):
        """Everything the core knows about a task, events included."""
        task_id = run.lease.task_id
        tables = self.core.tables
        tasks = [t for t in tables.tasks.values() if t.public_id == task_id]
        attempts = [a for t in tasks for k, a in tables.attempts.items() if k[0] == t.key]
        return deepcopy((tasks, attempts, tables.position))

    def _should_count(self, process, run):
        """Whether a report of this execution must be accepted: its lease stands, or was lost."""
        if run.lease.task_id not in self.known:
            return False
        task = self.core.task(run.lease.task_id)
        if task.lease_id != run.lease.lease_id:
            return False
        if task.leased:
            return True
        attempt = self.core.attempt(task.public_id)
        lost = attempt.status is AttemptStatus.LOST and not attempt.reported
        return lost and task.status is TaskStatus.QUEUED

    @precondition(lambda self: len(self.post) > 1)
    @rule(picks=st.lists(PICK, min_size=2, max_size=4), cancel=st.booleans(), delete=st.booleans())
    def deliver_together(self, picks, cancel, delete):
        """Several messages share a transaction, with a user's wish between them."""
        messages = [self.one_of(self.post, pick) for pick in picks]
        messages = [m for m in messages if m.execution is None or self._can_arrive(m)]
        commands = [message.command for message in messages]
        target = self.one_of(self.task_ids(), picks[0]) if self.known else None
        if cancel and target:
            commands.insert(1, CancelTask(NAMESPACE, target, "stop"))
        if delete and target:
            commands.insert(1, DeleteTask(NAMESPACE, target))
        answers = self.core.batch(*commands)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(command, DeleteTask) and answer is None:
                self.known.discard(command.task_id)
                self.deleted.add(command.task_id)

    @precondition(lambda self: self.post)
    @rule(pick=PICK)
    def lose_message(self, pick):
        self.post.pop(pick % len(self.post))

    # ---- time

    @rule(leap=LEAPS, timers=st.booleans(), set_by=st.sampled_from([0, 0, 0, -1, 1]))
    def pass_time(self, leap, timers, set_by):
        """Time passes, with or without a look at what is due; or somebody sets the clock."""
        if set_by:
            self.core.clock.jump(set_by * HOUR)
        elif timers:
            self.core.pass_time(leap)
            self._nobody_waits_longer_than_it_may()
        else:
            self.core.clock.advance(leap)
        self._forget_late()

    def _nobody_waits_longer_than_it_may(self):
        self.core.run_timers()  # what came back from an agent just now is due in the next look
        now = self.core.clock.now()
        for task in self.core.tables.tasks.values():
            if not (task.status.ended or task.leased or self._has_started(task)):
                limit = task.schedule_to_start
                assert not limit or now < task.created_at + limit, task

    def _has_started(self, task):
        tries = [a for (key, _), a in self.core.tables.attempts.items() if key == task.key]
        return any(attempt.started_at is not None for attempt in tries)

    def _forget_late(self):
        """A v1 agent kills its task when the time is up and is not heard of it later."""
        now = self.core.clock.now()
        for process in self.processes.values():
            if process.v1:
                process.runs = {k: run for k, run in process.runs.items() if run.expires > now}
        self.post = [
            m
            for m in self.post
            if m.execution is None or not m.process.v1 or m.execution.expires > now
        ]

    # ---- what must always hold

    @invariant()
    def every_invariant_holds(self):
        self.nothing_acknowledged_is_lost()
        self.every_task_is_exactly_one_of_waiting_ready_leased_ended()
        self.there_is_one_current_lease_and_its_attempt_is_the_latest()
        self.an_accepted_end_is_one_that_its_execution_reported()
        self.an_ended_task_never_changes()
        self.only_what_never_started_ends_for_it()
        self.no_group_exceeds_its_limit_and_nobody_is_stranded()
        self.unmet_counters_are_right_and_failures_are_passed_on()
        self.run_counters_are_right()
        self.drains_come_to_their_end()
        self.events_tell_the_story_of_the_rows()
        self.events_tell_what_each_agent_runs()

    def nothing_acknowledged_is_lost(self):
        assert {task.public_id for task in self.core.tables.tasks.values()} == self.known

    def every_task_is_exactly_one_of_waiting_ready_leased_ended(self):
        for task in self.core.tables.tasks.values():
            needs = [task.unmet > 0, task.not_before is not None]
            needs.append(task.group_key is not None and not any(needs))
            waiting = task.status is TaskStatus.PENDING and needs.count(True) == 1
            claimed = task.status in (TaskStatus.QUEUED, TaskStatus.RUNNING)
            leased = claimed and task.lease_agent is not None and task.lease_session is not None
            kinds = [waiting, task.ready, leased, task.status.ended]
            assert kinds.count(True) == 1, task
            assert leased or task.lease_agent is task.lease_session is None, task
            assert leased or task.status.ended or task.cancel_requested_at is None, task
            assert task.status is TaskStatus.PENDING or task.not_before is None, task
            assert task.due_at == next_due(task, self.core.policy), task

    def there_is_one_current_lease_and_its_attempt_is_the_latest(self):
        tables = self.core.tables
        for (key, number), attempt in tables.attempts.items():
            task = tables.tasks[key]
            current = task.leased and number == task.attempt
            assert current is not attempt.status.ended, attempt
            assert attempt.log_due == next_log_due(attempt, self.core.policy)
            if current:
                assert (attempt.agent_key, attempt.epoch) == (task.lease_agent, task.lease_epoch)
                started = attempt.status is AttemptStatus.RUNNING
                assert started is (task.status is TaskStatus.RUNNING)
        for task in tables.tasks.values():
            assert task.lease_epoch == task.attempt
            tries = [number for key, number in tables.attempts if key == task.key]
            assert sorted(tries) == list(range(1, task.attempt + 1))

    def an_accepted_end_is_one_that_its_execution_reported(self):
        tables = self.core.tables
        for (key, _), attempt in tables.attempts.items():
            if attempt.reported:
                lease_id = f"{tables.tasks[key].public_id}.{attempt.epoch}"
                assert attempt.exit_code in self.codes.get(lease_id, ()), attempt

    def an_ended_task_never_changes(self):
        for task in self.core.tables.tasks.values():
            if task.status.ended:
                assert self.ended.setdefault(task.public_id, task) == task

    def only_what_never_started_ends_for_it(self):
        for task in self.core.tables.tasks.values():
            assert task.start_by is None or not self._has_started(task), task
            if "did not start within" in task.error and task.status is TaskStatus.TIMEOUT:
                assert not self._has_started(task), task
                assert task.finished_at >= task.created_at + task.schedule_to_start

    def no_group_exceeds_its_limit_and_nobody_is_stranded(self):
        for key, limit in self.limits.items():
            members = [t for t in self.core.tables.tasks.values() if t.group_key == key]
            going_on = (TaskStatus.QUEUED, TaskStatus.RUNNING)
            holders = {task.key for task in members if task.status in going_on}
            if holders - self.holders.get(key, set()):
                assert len(holders) <= limit, f"a place too many in {key}"
            self.holders[key] = holders
            waiting = [
                task
                for task in members
                if task.status is TaskStatus.PENDING and not task.unmet and task.not_before is None
            ]
            assert not waiting or len(holders) >= limit, f"{waiting[0]} is stranded in {key}"

    def unmet_counters_are_right_and_failures_are_passed_on(self):
        tables = self.core.tables
        unmet = Counter()
        for task_key, other in tables.dependencies:
            task, needed = tables.tasks[task_key], tables.tasks[other]
            unmet[task_key] += not needed.status.ended
            well = needed.status is TaskStatus.SUCCESS or needed.allow_failure
            assert well or not needed.status.ended or task.status.ended, task
        for task in tables.tasks.values():
            if not task.status.ended:
                assert task.unmet == unmet[task.key], task

    def drains_come_to_their_end(self):
        for agent in self.core.tables.agents.values():
            assert agent.due_at == next_agent_due(agent), agent
            for task in self.core.tables.tasks.values():
                if task.lease_agent == agent.key and agent.scheduling is Scheduling.STOPPING:
                    asked = (task.release_requested_at, task.cancel_requested_at)
                    assert asked != (None, None), task

    def run_counters_are_right(self):
        tables = self.core.tables
        for run in tables.runs.values():
            assert run.status is status_of(run)
            tasks = [t for t in tables.tasks.values() if t.run_key == run.key]
            if len(tasks) < run.total:
                assert run.status.ended  # only then may its tasks be deleted
                continue
            ends = Counter(t.status for t in tasks if t.status.ended)
            bad = [t for t in tasks if t.status in (TaskStatus.FAILED, TaskStatus.TIMEOUT)]
            assert run.ended == ends.total()
            assert run.skipped == ends[TaskStatus.SKIPPED]
            assert run.cancelled == ends[TaskStatus.CANCELLED]
            assert run.excused == sum(t.allow_failure for t in bad)
            assert run.failed == sum(not t.allow_failure for t in bad)
            assert run.running == sum(t.status is TaskStatus.RUNNING for t in tasks)
            begun = {key for (key, _), a in tables.attempts.items() if a.started_at is not None}
            assert run.stage == max((t.stage for t in tasks if t.key in begun), default=0)
        for pipeline in tables.pipelines.values():
            for run in tables.runs.values():
                if (run.pipeline_key, run.number) == (pipeline.key, pipeline.runs):
                    assert pipeline.last_status == run.status

    def events_tell_what_each_agent_runs(self):
        tasks = self.core.tables.tasks.values()
        runs = Counter(t.last_agent_id for t in tasks if t.status is TaskStatus.RUNNING)
        assert {agent: count for agent, count in self.running.items() if count} == runs

    def events_tell_the_story_of_the_rows(self):
        events = self.core.tables.events
        for event in events[self.read :]:
            assert event.position == self.position + 1
            self.position = event.position
            if event.kind is EventKind.TASK_STATUS:
                self._told(self.statuses, TaskStatus, event)
                data = event.data
                self.running[data["agent"]] += data["status"] == TaskStatus.RUNNING
                self.running[data["agent"]] -= data["previous"] == TaskStatus.RUNNING
            elif event.kind is EventKind.RUN_STATUS:
                self._told(self.run_statuses, RunStatus, event)
            elif event.kind is EventKind.TASK_DELETED:
                del self.statuses[event.resource_id]
        self.read = len(events)
        tables = self.core.tables
        assert self.statuses == {t.public_id: t.status for t in tables.tasks.values()}
        assert self.run_statuses == {r.public_id: r.status for r in tables.runs.values()}

    def _told(self, statuses, kind, event):
        previous = statuses.get(event.resource_id, 0)
        assert event.data["previous"] == previous, event
        assert not previous or not kind(previous).ended, "something followed an end"
        statuses[event.resource_id] = kind(event.data["status"])

    # ---- and at last

    def teardown(self):
        """Nothing is stranded: with one good agent and patience everything ends."""
        if not self.known:
            return
        for process in self.processes.values():
            self.core.do(Unregister(process.agent_id, process.session, "over"))
        self.core.join("good", slots=1000, labels={"disk": "ssd"})
        for _ in range(200):
            self.core.pass_time(2 * HOUR)
            for given in self.core.claim("good", slots=1000):
                lease = LeaseRef(given.task_id, given.lease_id)
                self.codes[given.lease_id] = {0}
                self.core.report(lease, TaskStatus.SUCCESS, agent_id="good")
            if all(task.status.ended for task in self.core.tables.tasks.values()):
                break
        else:
            raise AssertionError("some task is stranded")
        assert all(run.status.ended for run in self.core.tables.runs.values())
        self.core.pass_time(1000 * HOUR)  # the clock may have been set back that often
        assert all(a.log_due is None for a in self.core.tables.attempts.values())
        self.every_invariant_holds()


_SELECTORS = {}


def _fits(canonical, labels):
    if canonical not in _SELECTORS:
        _SELECTORS[canonical] = Selector.from_canonical(canonical)
    return _SELECTORS[canonical].matches(labels)
