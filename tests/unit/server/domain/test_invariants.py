"""The six invariants of the core, under random interleavings (see machine.py).

HYPOTHESIS_PROFILE=long walks farther and longer than every test run can afford. The known-bad
cores at the end are broken the way other engines were; the same walk must find each out.
"""

import os
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RULE_MARKER, run_state_machine_as_test

from server.domain import claiming, ending, reporting, submitting
from server.domain.claiming import Claim
from server.domain.lease import Standing, standing
from server.domain.ledger import Ledger
from server.domain.task import TaskStatus
from server.engine.writer import BrokenRuleError
from server.stores.interfaces import PoisonError
from tests.unit.server.domain.machine import World

CHECKS = list(HealthCheck)
PROFILES = {
    # The same walks every time: a new path found by chance belongs to the long profile.
    "ci": settings(
        max_examples=30,
        stateful_step_count=200,
        derandomize=True,
        database=None,
        suppress_health_check=CHECKS,
    ),
    "long": settings(max_examples=3000, stateful_step_count=300, suppress_health_check=CHECKS),
}
PROFILE = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "ci")]
pytestmark = [pytest.mark.timeout(0)] if PROFILE is PROFILES["long"] else []

TestInvariants = World.TestCase
TestInvariants.settings = PROFILE


# ---- known-bad cores


def _patch_standing(monkeypatch, bad):
    rooms = [room for name, room in sys.modules.items() if name.startswith("server.domain.")]
    for room in rooms:
        if vars(room).get("standing") is standing:
            monkeypatch.setattr(room, "standing", bad)


def fence_by_agent_only(monkeypatch):
    """Any report of the agent counts, whichever of its leases it is about."""
    _patch_standing(monkeypatch, lambda ledger, task, agent, _: standing(ledger, task, agent, ""))


def requeue_without_adoption(monkeypatch):
    """What a lost agent still brings is thrown away."""

    def bad(*question):
        found = standing(*question)
        return Standing.STALE if found is Standing.ADOPTABLE else found

    _patch_standing(monkeypatch, bad)


def a_told_loss_is_told_again(monkeypatch):
    """The loss that an agent reports itself may be adopted, and reported again."""

    def bad(ledger, task, *rest):
        found = standing(ledger, task, *rest)
        return Standing.ADOPTABLE if found is Standing.ENDED and task.ready else found

    _patch_standing(monkeypatch, bad)


def slots_by_memory(monkeypatch):
    """The claim believes the offers instead of counting leases."""
    monkeypatch.setattr(Claim, "_good_offers", lambda self, *_: list(self.offers))


def only_the_last_loss_counts(monkeypatch):
    """A v1 agent is kept from the task it lost last, and that is forgotten by and by."""
    monkeypatch.setattr(claiming, "_barred", lambda *_: {})


def the_epoch_is_taken_back(monkeypatch):
    """A release undoes the claim's epoch, so that the next claim uses it again."""
    after_release = ending._after_release

    def bad(ledger, task):
        task.lease_epoch -= 1
        task.attempt -= 1
        after_release(ledger, task)

    monkeypatch.setattr(ending, "_after_release", bad)


def a_cancel_is_forgotten(monkeypatch):
    """A release queues the task again although its cancel was asked for."""
    monkeypatch.setattr(ending, "_after_release", ending.requeue)


def a_skip_is_not_passed_on(monkeypatch):
    """What depends on a skipped task waits for ever."""
    release = ending._release_dependents

    def bad(ledger, task):
        return [] if task.status is TaskStatus.SKIPPED else release(ledger, task)

    monkeypatch.setattr(ending, "_release_dependents", bad)


def priority_is_not_looked_at(monkeypatch):
    """Tasks go out as they came in."""
    monkeypatch.setattr(submitting, "sort_key", lambda submitted_at, _: submitted_at)


def a_start_does_not_count(monkeypatch):
    """A task that was lost after its start is ended for not having started."""
    start_attempt = ending.start_attempt

    def bad(ledger, task, started_at):
        start_by = task.start_by
        start_attempt(ledger, task, started_at)
        task.start_by = start_by

    monkeypatch.setattr(ending, "start_attempt", bad)
    monkeypatch.setattr(reporting, "start_attempt", bad)


def a_claim_counts_as_a_start(monkeypatch):
    """A task that came back from an agent unstarted may wait for ever."""
    lease = claiming._lease

    def bad(ledger, task, *rest):
        lease(ledger, task, *rest)
        task.start_by = None

    monkeypatch.setattr(claiming, "_lease", bad)


def places_are_not_counted(monkeypatch):
    """Whoever asks for a place in a group gets one."""
    monkeypatch.setattr(Ledger, "places_taken", lambda *_: 0)


def a_freed_place_is_forgotten(monkeypatch):
    """A member's end is not passed on to those that wait."""
    unsettle = Ledger.unsettle

    def bad(self, task):
        if not task.status.ended:
            unsettle(self, task)

    monkeypatch.setattr(Ledger, "unsettle", bad)


KNOWN_BAD = {
    fence_by_agent_only: ("own-0", "submit work overtake"),
    requeue_without_adoption: ("own-0", "submit work deliver blink"),
    a_told_loss_is_told_again: ("own-0", "submit work deliver"),
    slots_by_memory: ("own-0", "submit dispatch"),
    only_the_last_loss_counts: ("v1-0 v1-1", "work blink"),
    the_epoch_is_taken_back: ("own-0", "work deliver join dispatch"),
    a_cancel_is_forgotten: ("own-0", "dispatch wish join"),
    a_skip_is_not_passed_on: ("own-0", "work wish"),
    priority_is_not_looked_at: ("own-0", "hurry dispatch"),
    a_start_does_not_count: ("own-0", "hurry work blink pass_time"),
    a_claim_counts_as_a_start: ("own-0", "hurry dispatch lose_frame pass_time"),
    places_are_not_counted: ("own-0", "gather dispatch"),
    a_freed_place_is_forgotten: ("own-0", "gather work"),
}
"""Bad cores, with the agents and the moves among which their fault is found soon."""


def small_world(agents, moves):
    """Return the world with these agents and these moves alone."""
    every = {name for name, each in vars(World).items() if hasattr(each, RULE_MARKER)}
    left_out = dict.fromkeys(every - set(moves.split()))
    return type("World", (World,), {**left_out, "STAFF": tuple(agents.split())})


# Which walks are tried follows from the code, so any change may make the search longer.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("break_it", KNOWN_BAD)
def test_the_walk_finds_out_a_core_that_breaks_its_promise(monkeypatch, break_it):
    world = small_world(*KNOWN_BAD[break_it])
    break_it(monkeypatch)
    until_found = settings(
        max_examples=1000,
        stateful_step_count=50,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=CHECKS,
    )
    with pytest.raises((AssertionError, BrokenRuleError, PoisonError)):
        run_state_machine_as_test(world, settings=until_found)


@pytest.mark.parametrize(("agents", "moves"), KNOWN_BAD.values())
def test_the_core_keeps_its_promises_in_the_same_small_worlds(agents, moves):
    few = settings(PROFILE, max_examples=PROFILE.max_examples // 5)
    run_state_machine_as_test(small_world(agents, moves), settings=few)
