"""What is said of a task is true in every state that the random world can bring about.

A claim is the judge: it decides over a copy of what is stored, and what it gives out must be what
was foretold. The rest is compared with what can be counted by hand.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RULE_MARKER, invariant, run_state_machine_as_test

from server.domain import waiting
from server.domain.agent import SchedulingState, SessionState
from server.domain.claiming import Claim
from server.domain.labels import Selector
from server.domain.ledger import Ledger
from server.domain.placement import Offer
from server.domain.task import TaskStatus
from server.domain.waiting import Fit, WaitingFor
from server.engine import explainer
from tests.fakes.memory_source import MemorySource
from tests.unit.server.domain.machine import World

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
WALK = settings(
    max_examples=200 if LONG else 15,
    stateful_step_count=100 if LONG else 60,
    derandomize=not LONG,
    database=None,
    # Not `explain`: it traces every line of every example, and this walk asks for many.
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
IN_LINE = {
    WaitingFor.AGENT,
    WaitingFor.OPEN_AGENT,
    WaitingFor.SLOT,
    WaitingFor.TURN,
    WaitingFor.HANDOUT,
}


class ExplainedWorld(World):
    """A world in which every task is asked after, at every step."""

    @invariant()
    def every_explanation_is_true(self):
        ready = [task for task in self.core.tables.tasks.values() if task.ready]
        for task in self.core.tables.tasks.values():
            found = self.core.explain(task.public_id)
            assert found.sentence
            if not task.ready:
                self.check_state(task, found)
            else:
                self.check_line(task, found)
        for task in ready[-3:]:
            self.check_agents(task, self.core.explain(task.public_id))

    def check_state(self, task, found):
        tables = self.core.tables
        needs = [tables.tasks[other] for key, other in tables.dependencies if key == task.key]
        unmet = {need.public_id for need in needs if not need.status.ended}
        if task.status.ended:
            expected = WaitingFor.NOTHING
        elif task.lease_agent is not None:
            asked = task.cancel_requested_at or task.release_requested_at
            runs = WaitingFor.END if task.status is TaskStatus.RUNNING else WaitingFor.START
            expected = WaitingFor.STOP if asked else runs
            assert task.last_agent_id in found.sentence
        elif task.group_key is not None and not unmet and task.not_before is None:
            expected = WaitingFor.PLACE
            going_on = (TaskStatus.QUEUED, TaskStatus.RUNNING)
            members = [t for t in tables.tasks.values() if t.group_key == task.group_key]
            holders = {t.public_id for t in members if t.status in going_on}
            assert len(holders) == found.crowd.taken >= self.limits[task.group_key]
            assert {task_id for task_id, _ in found.crowd.holders} <= holders
        else:
            expected = WaitingFor.DEPENDENCIES if unmet else WaitingFor.RETRY
            assert {need.task_id for need in found.unmet} == unmet
        assert found.waiting_for is expected, task

    def check_line(self, task, found):
        assert found.waiting_for in IN_LINE
        fitting = [agent for agent in self.connected() if self.fits(agent, task)]
        ahead = [
            other
            for other in self.core.tables.tasks.values()
            if other.ready
            and (other.sort_key, other.key) < (task.sort_key, task.key)
            and any(self.fits(agent, other) for agent in fitting)
        ]
        assert found.ahead == len(ahead)
        given = task.public_id in self.given_out(self.connected())
        if found.waiting_for is WaitingFor.HANDOUT:
            assert given, "it does not start in a moment"
        elif found.waiting_for is not WaitingFor.TURN:
            assert not given, found

    def check_agents(self, task, found):
        fits = {each.agent_id: each.fit for each in found.agents}
        assert fits.keys() == {agent.public_id for agent in self.connected()}
        free = 0
        for agent in self.connected():
            fit = fits[agent.public_id]
            assert (fit is Fit.UNFIT) is not self.fits(agent, task)
            given = task.public_id in self.given_out([agent], only=task)
            assert given is (fit is Fit.ELIGIBLE), (agent, fit)
            if given:
                held = sum(t.lease_agent == agent.key for t in self.core.tables.tasks.values())
                free += agent.slots - held
        assert found.free_slots == free

    def connected(self):
        agents = self.core.tables.agents.values()
        return [agent for agent in agents if agent.session_state is SessionState.LIVE]

    def fits(self, agent, task):
        selector = Selector.from_canonical(self.core.tables.classes[task.class_key])
        return selector.matches(agent.effective_labels)

    def given_out(self, agents, *, only=None):
        """Return ids of the tasks that a claim for these agents would give out now."""
        tables = self.core.tables.copied()
        if only is not None:
            others = [t for t in tables.tasks.values() if t.ready and t.key != only.key]
            for other in others:
                del tables.tasks[other.key]
        ready = {task.class_key: task for task in tables.tasks.values() if task.ready}
        offers = []
        for agent in agents:
            classes = {key for key, task in ready.items() if self.fits(agent, task)}
            ids = (agent.key, agent.public_id, agent.session_id)
            offers.append(Offer(*ids, agent.slots, frozenset(classes), frame=10**6))
        ledger = Ledger(MemorySource(tables), self.core.clock.now(), self.core.policy)
        queues = tuple(sorted({task.queue for task in tables.tasks.values() if task.ready}))
        claimed = Claim(tuple(offers), queues).decide(ledger)
        return {given.task_id for tasks in claimed.assignments.values() for given in tasks}


def walk(world=ExplainedWorld, **changed):
    run_state_machine_as_test(world, settings=settings(WALK, **changed))


def test_what_is_said_of_every_task_is_true():
    walk()


def a_pause_is_overlooked(monkeypatch):
    """Paused agents are taken for such that are given work."""
    monkeypatch.setattr(waiting, "scheduling_state", lambda *_: SchedulingState.ACTIVE)


def the_line_is_overlooked(monkeypatch):
    """Nobody looks who stands before a task."""
    in_line = waiting._with_free_slots
    overlooked = {"ahead": 0, "others": 0}
    monkeypatch.setattr(
        waiting, "_with_free_slots", lambda known, free: in_line(replace(known, **overlooked), free)
    )


def the_lost_are_forgotten(monkeypatch):
    """Nobody asks which v1 agent may still run the task."""
    monkeypatch.setattr(explainer, "may_be_heard_of", lambda *_: frozenset())


def every_slot_is_free(monkeypatch):
    """Leases are not counted."""
    monkeypatch.setattr(waiting.Candidate, "free", property(lambda self: self.agent.slots))


LIES = {
    a_pause_is_overlooked: ("own-0", "submit control"),
    the_line_is_overlooked: ("own-0", "submit trigger"),
    the_lost_are_forgotten: ("v1-0", "submit work overtake blink"),
    every_slot_is_free: ("own-0", "submit dispatch"),
}
"""Lies, with the agent and the moves among which they are found out soon."""


@pytest.mark.parametrize("lie", LIES)
def test_the_walk_finds_out_an_explanation_that_lies(monkeypatch, lie):
    agent_id, moves = LIES[lie]
    every = {name for name, each in vars(World).items() if hasattr(each, RULE_MARKER)}
    left_out = dict.fromkeys(every - set(moves.split()))
    world = type("World", (ExplainedWorld,), {**left_out, "STAFF": (agent_id,)})
    lie(monkeypatch)
    with pytest.raises(AssertionError):
        walk(world, max_examples=300, phases=[Phase.generate], report_multiple_bugs=False)
