"""Why a task stands where it stands, as a sentence and in parts: the one place that decides it.

Pure: whoever asks has gathered what there is to know in a `Situation`. It must be true. Above all,
HANDOUT is said only when the next claim gives the task out.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from server.domain.agent import Agent, SchedulingState, scheduling_state
from server.domain.gate import Gate
from server.domain.labels import CONTAINER_LABEL, PLUGIN_LABEL, Selector
from server.domain.moment import SECOND, Moment
from server.domain.rules import Rules
from server.domain.task import Judged, Task, TaskStatus

AHEAD_LIMIT = 10_000
"""Tasks before another that are counted; beyond, it is only known that there are more."""

NAMED = 5


class WaitingFor(IntEnum):
    """What a task waits for. The numbers are those of `task.v1.WaitingFor`."""

    NOTHING = 1
    END = 2
    STOP = 3
    START = 4
    DEPENDENCIES = 5
    RETRY = 6
    IMAGE = 7
    AGENT = 8
    OPEN_AGENT = 9
    SLOT = 10
    TURN = 11
    HANDOUT = 12
    PLACE = 13
    APPROVAL = 14
    TURN_OF_RUN = 15
    PLUGIN = 16


class Fit(IntEnum):
    """What an agent says to a task, nearest first. The numbers are those of `task.v1.Fit`."""

    ELIGIBLE = 1
    FULL = 2
    BUSY = 3
    PAUSED = 4
    DRAINING = 5
    QUARANTINED = 6
    BARRED = 7
    UNFIT = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connected agent, as far as it matters to a task that is ready."""

    agent: Agent
    held: int
    """How many leases it holds."""
    takes_work: bool = True
    """False where it has said itself that it takes none now."""

    @property
    def free(self) -> int:
        """Slots that nothing holds."""
        return max(0, self.agent.slots - self.held)


@dataclass(frozen=True, slots=True)
class AgentFit:
    """What one agent says to a task."""

    agent_id: str
    fit: Fit
    reason: str


@dataclass(frozen=True, slots=True)
class Need:
    """A task that another waits for."""

    task_id: str
    name: str
    status: TaskStatus


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who holds the places of a concurrency group."""

    key: str
    places: int
    holders: Sequence[tuple[str, str]]
    """(id, name) of the first few."""
    taken: int


@dataclass(frozen=True, slots=True)
class RunTurn:
    """A run that waits for its turn in a group of runs."""

    group_key: str
    going_on: Sequence[tuple[str, int]]
    """(id, number) of each run that goes on."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is to know about a task; the fleet and the line matter only when it is ready."""

    task: Task
    selector: Selector
    now: Moment
    image: str = ""
    plugins: Sequence[str] = ()
    """Plugins that it uses, as id@version."""
    needs: Sequence[Need] = ()
    crowd: Crowd | None = None
    """Who is in its concurrency group."""
    gate: Gate | None = None
    """The gate that it waits behind or has passed."""
    turn: RunTurn | None = None
    """What its run waits for, if it does."""
    fleet: Sequence[Candidate] = ()
    barred: Collection[int] = ()
    """Keys of v1 agents that an earlier attempt may still be heard from."""
    ahead: int = 0
    """Ready tasks before it that its fitting agents could take, at most AHEAD_LIMIT + 1."""
    others: int = 0
    """The same of other namespaces, which take turns with its own."""
    hides_others: bool = False
    """Whether their number is nobody's business; then it is 1 for any."""

    def anybody_has(self, label: str) -> bool:
        """Tell whether a connected agent has a label that says what it can do."""
        return any(each.agent.effective_labels.get(label) == "true" for each in self.fleet)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task stands where it stands."""

    waiting_for: WaitingFor
    sentence: str
    unmet: Sequence[Need] = ()
    crowd: Crowd | None = None
    agents: Sequence[AgentFit] = ()
    """Those first that come nearest to taking it."""
    counts: Counter[Fit] = field(default_factory=Counter)
    free_slots: int = 0
    ahead: int = 0
    others: int = 0


def explain(situation: Situation) -> Explanation:
    """Return why a task stands where it stands."""
    task = situation.task
    if task.status.ended:
        text = _because(f"It ended in {task.status.name}", task.error)
        return Explanation(WaitingFor.NOTHING, text)
    if task.leased:
        return _at_its_agent(task)
    if situation.turn is not None:
        return Explanation(WaitingFor.TURN_OF_RUN, _for_turn(situation.turn))
    if task.unmet:
        unmet = [need for need in situation.needs if not need.status.ended]
        return Explanation(WaitingFor.DEPENDENCIES, _for_others(unmet, situation.gate), unmet=unmet)
    if task.judged is Judged.ASKED:
        return Explanation(WaitingFor.APPROVAL, _for_approval(task))
    if task.not_before is not None:
        seconds = max(0, task.not_before - situation.now) / SECOND
        text = f"Its next try is in {seconds:.0f} seconds; the last one failed: {task.error}."
        return Explanation(WaitingFor.RETRY, text)
    crowd = situation.crowd
    if task.awaits_place and crowd is not None:
        return Explanation(WaitingFor.PLACE, _for_a_place(crowd), crowd=crowd)
    return _in_line(situation)


def why_it_waits(task: Task, explanation: Explanation) -> str:
    """Return the sentence about a task that waits, or "" for one that runs or has ended."""
    over = task.status.ended or task.status is TaskStatus.RUNNING
    return "" if over else explanation.sentence


def judge(
    candidate: Candidate, selector: Selector, barred: Collection[int], now: Moment
) -> AgentFit:
    """Return what a connected agent says to a task that is ready."""
    agent = candidate.agent
    if miss := selector.first_miss(agent.effective_labels):
        return AgentFit(agent.public_id, Fit.UNFIT, miss)
    return AgentFit(agent.public_id, *_readiness(candidate, barred, now))


def _readiness(candidate: Candidate, barred: Collection[int], now: Moment) -> tuple[Fit, str]:
    agent, free = candidate.agent, candidate.free
    if agent.v1 and agent.key in barred:
        return Fit.BARRED, "may still run an earlier attempt"
    state = scheduling_state(agent, candidate.held)
    if state is SchedulingState.PAUSED:
        return Fit.PAUSED, _because("is paused", agent.note, end="")
    if state is not SchedulingState.ACTIVE:
        drains = state is SchedulingState.DRAINING
        text = "is draining" if drains else "is kept empty by a drain"
        return Fit.DRAINING, _because(text, agent.note, end="")
    if agent.quarantined_until is not None:
        seconds = -(-max(0, agent.quarantined_until - now) // SECOND)
        return Fit.QUARANTINED, _because(f"is quarantined for {seconds} s", agent.fault, end="")
    if not candidate.takes_work:
        return Fit.BUSY, "takes no work now: it is stopping, or its host cannot start tasks"
    if not free:
        return Fit.FULL, f"has no free slot of {agent.slots}"
    return Fit.ELIGIBLE, f"has {free} of {agent.slots} slots free"


def _at_its_agent(task: Task) -> Explanation:
    agent = task.last_agent_id
    if task.cancel_requested_at is not None:
        text = _because(f"Agent {agent} was asked to cancel it", task.cancel_reason)
        return Explanation(WaitingFor.STOP, text)
    if task.release_requested_at is not None:
        text = f"Agent {agent} is drained and was asked to stop it; then it is queued again."
        return Explanation(WaitingFor.STOP, text)
    if task.status is TaskStatus.RUNNING:
        return Explanation(WaitingFor.END, f"It runs on agent {agent}.")
    return Explanation(WaitingFor.START, f"Agent {agent} has it and is about to start it.")


def _for_others(unmet: Sequence[Need], gate: Gate | None) -> str:
    waiting = [f"{need.name} ({need.status.name})" for need in unmet]
    if gate is not None and gate.unmet:
        jobs = "job" if gate.unmet == 1 else "jobs"
        waiting.append(f"{gate.unmet} {jobs} of the stage before")
    return f"It waits for {_listed(waiting) or 'what it depends on'}."


def _for_turn(turn: RunTurn) -> str:
    runs = [f"run {number} ({run_id})" for run_id, number in turn.going_on]
    return (
        f"Its run waits for its turn in the group {turn.group_key!r}, "
        f"until {_listed(runs) or 'another run'} has ended."
    )


def _for_approval(task: Task) -> str:
    approval = Rules.from_json(task.rules).approval
    who = _listed(approval.who) if approval is not None else ""
    message = f" They are asked: {approval.message}" if approval and approval.message else ""
    return (
        f"It waits for the approval of {who or 'somebody'}: "
        f"muster run approve {task.run_id} {task.name!r}.{message}"
    )


def _for_a_place(crowd: Crowd) -> str:
    shown = ", ".join(f"{name} ({task_id})" for task_id, name in crowd.holders)
    more = crowd.taken - len(crowd.holders)
    held = shown + (f" and {more} more" if more else "")
    return (
        f"It waits for a place in concurrency group {crowd.key!r} (limit {crowd.places}), "
        f"held by {held or 'nobody any more'}."
    )


def _in_line(situation: Situation) -> Explanation:
    known = (situation.selector, situation.barred, situation.now)
    pairs = [(judge(candidate, *known), candidate) for candidate in situation.fleet]
    counts = Counter(verdict.fit for verdict, _ in pairs)
    agents = sorted((v for v, _ in pairs), key=lambda v: (v.fit, v.agent_id))
    free = sum(c.free for verdict, c in pairs if verdict.fit is Fit.ELIGIBLE)
    waiting_for, text = _what_lacks(situation, agents, counts, free)
    return Explanation(
        waiting_for,
        text,
        agents=agents,
        counts=counts,
        free_slots=free,
        ahead=situation.ahead,
        others=situation.others,
    )


def _what_lacks(
    situation: Situation, agents: Sequence[AgentFit], counts: Counter[Fit], free: int
) -> tuple[WaitingFor, str]:
    fitting = len(agents) - counts[Fit.UNFIT]
    if not fitting:
        return _without_a_fitting_agent(situation, agents)
    if free:
        return _with_free_slots(situation, free)
    if counts[Fit.FULL]:
        return WaitingFor.SLOT, _everybody_is_full(counts[Fit.FULL], situation)
    return WaitingFor.OPEN_AGENT, _nobody_is_given_work(agents[:fitting])


def _without_a_fitting_agent(
    situation: Situation, agents: Sequence[AgentFit]
) -> tuple[WaitingFor, str]:
    if situation.image and not situation.anybody_has(CONTAINER_LABEL):
        text = (
            f"It needs the image {situation.image}, and no connected agent can run images: "
            "install podman, docker or nerdctl where one runs."
        )
        return WaitingFor.IMAGE, text
    if situation.plugins and agents and not situation.anybody_has(PLUGIN_LABEL):
        text = f"It uses {_listed(situation.plugins)}, and no connected agent can run plugins."
        return WaitingFor.PLUGIN, text
    if not agents:
        text = "No agent is connected; start one with: muster-agent --server HOST:PORT"
        return WaitingFor.AGENT, text
    only = "The one connected agent does not fit"
    who = only if len(agents) == 1 else f"None of the {len(agents)} connected agents fits"
    return WaitingFor.AGENT, f"{who} {situation.selector.describe()}. {agents[0].reason}"


def _with_free_slots(situation: Situation, free: int) -> tuple[WaitingFor, str]:
    # Whoever may come before it takes one slot at most.
    if situation.ahead + situation.others < free:
        return WaitingFor.HANDOUT, "A fitting agent has a free slot; it starts in a moment."
    slots = "1 free slot" if free == 1 else f"{free} free slots"
    text = _in_its_way(situation)
    return WaitingFor.TURN, f"{text[0].upper()}{text[1:]}, and fitting agents have {slots}."


def _everybody_is_full(full: int, situation: Situation) -> str:
    who = f"{full} fitting {'agent is' if full == 1 else 'agents are'} full"
    if not situation.ahead and not situation.others:
        return f"{who}; it is next when a slot gets free."
    return f"{who}, and {_in_its_way(situation)}."


def _nobody_is_given_work(fitting: Sequence[AgentFit]) -> str:
    only = "The one fitting agent is given no work now"
    who = only if len(fitting) == 1 else f"None of the {len(fitting)} fitting agents is given work"
    return f"{who}: {_listed([f'{agent.agent_id} {agent.reason}' for agent in fitting])}."


def _in_its_way(situation: Situation) -> str:
    """Return who may come before a task: of its own namespace, and of others."""
    words = []
    if situation.ahead:
        words.append(f"{_ready_tasks(situation.ahead, 'stand')} before it")
    if situation.others and situation.hides_others:
        words.append("tasks of other namespaces take turns with it")
    elif situation.others:
        words.append(f"{_ready_tasks(situation.others, 'take')} turns with it for other namespaces")
    return ", ".join(words)


def _ready_tasks(count: int, verb: str) -> str:
    if count > AHEAD_LIMIT:
        return f"more than {AHEAD_LIMIT} ready tasks {verb}"
    return f"1 ready task {verb}s" if count == 1 else f"{count} ready tasks {verb}"


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more


def _because(text: str, reason: str, *, end: str = ".") -> str:
    """Return a text with its reason; a full stop of the reason's own is not repeated."""
    return f"{text}: {reason.rstrip('.')}{end}" if reason else f"{text}{end}"
