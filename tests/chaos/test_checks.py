"""The checker itself: it is silent about a good run, and complains of each way to break a promise.

The evidence is that of a small real run; each known-bad variant doctors one thing in it.
"""

import copy

import pytest

from tests.chaos.checks import (
    ATTEMPT_RELEASED,
    CANCELLED,
    FAILED,
    LOG_INCOMPLETE,
    QUEUED,
    RUNNING,
    SKIPPED,
    SUCCESS,
    Checker,
    figures,
)
from tests.chaos.evidence import Evidence
from tests.chaos.workload import ALWAYS, Spec, Submitted, expected_line

LINES = 3
COMPLETE = 2


class Story:
    """Good evidence, told step by step."""

    def __init__(self):
        self.evidence = Evidence(Submitted())
        self._position = 0

    def task(self, name: str, *steps: tuple[int, int], needs: tuple[str, ...] = (), **fields):
        """Add a task with its changes, each a status and an attempt."""
        evidence, submitted = self.evidence, self.evidence.submitted
        key = len(evidence.tasks) + 1
        spec = Spec(number=key, at=0.0, lines=LINES, **fields)
        submitted.tasks[name], submitted.ids[key] = spec, name
        before = 0
        for status, attempt in steps:
            data = {"status": status, "previous": before, "exit_code": 0, "attempt": attempt}
            self._event("task.status", name, data)
            before = status
        status, attempt = steps[-1]
        evidence.tasks.append(
            {
                **{"key": key, "public_id": name, "name": name, "status": status, "run_key": None},
                **{"attempt": attempt, "exit_code": 0, "infra_retries": 0, "error": ""},
                **{"lease_agent": None, "lease_session": None, "due_at": None},
                **{"allow_failure": spec.allow_failure, "last_agent_id": "a1"},
            }
        )
        for need in needs:
            row = {"depends_on": self.row("tasks", public_id=need)["key"], "task_key": key}
            evidence.dependencies.append(row)

    def attempt(self, name: str, number: int, status: int, *, runs: bool = True):
        """Add an attempt that printed all its lines."""
        key = self.row("tasks", public_id=name)["key"]
        mark = f"{name}/{number}"
        lines = [expected_line(mark, n + 1) for n in range(LINES)] if runs else []
        self.evidence.attempts.append(
            {
                **{"task_key": key, "number": number, "epoch": number, "agent_id": "a1"},
                **{"status": status, "claimed_at": 1, "started_at": 2, "ended_at": 3, "cause": ""},
                **{"log_state": COMPLETE, "log_lines": len(lines)},
            }
        )
        if runs:
            self.evidence.journal += [f"{mark} start", f"{mark} end"]
            for first, texts in ((1, lines[:2]), (3, lines[2:])):
                row = {"task_key": key, "attempt": number, "first_line": first}
                self.evidence.logs.append(row | {"lines": len(texts), "texts": texts})

    def _event(self, kind: str, subject: str, data: dict):
        self._position += 1
        event = {"position": self._position, "kind": kind, "resource_id": subject, "data": data}
        self.evidence.events.append(event)

    def run(self, name: str, jobs: tuple[str, ...], **fields):
        """Add a run of tasks that are there already."""
        key = len(self.evidence.runs) + 1
        for job in jobs:
            self.row("tasks", public_id=job)["run_key"] = key
            del self.evidence.submitted.tasks[job]
        self.evidence.submitted.runs[name] = jobs
        self.evidence.runs.append({"key": key, "public_id": name, **fields})
        self._event("run.status", name, {"status": fields["status"], "previous": 2})

    def row(self, table: str, **wanted) -> dict:
        """Return the one row with these values."""
        rows = [r for r in getattr(self.evidence, table) if wanted.items() <= r.items()]
        assert len(rows) == 1, rows
        return rows[0]


def good_story() -> Story:
    story = Story()
    story.task("plain", (QUEUED, 0), (RUNNING, 1), (SUCCESS, 1))
    story.attempt("plain", 1, 3)
    story.task("lost", (QUEUED, 0), (RUNNING, 1), (QUEUED, 1), (RUNNING, 2), (SUCCESS, 2))
    story.attempt("lost", 1, 7)
    story.attempt("lost", 2, 3)
    story.task("next", (1, 0), (QUEUED, 0), (RUNNING, 1), (SUCCESS, 1), needs=("plain", "lost"))
    story.attempt("next", 1, 3)
    story.task("bad", (QUEUED, 0), (RUNNING, 1), (FAILED, 1), fails=ALWAYS)
    story.attempt("bad", 1, 4)
    story.task("skipped", (1, 0), (SKIPPED, 0), needs=("bad",))
    story.task("cancelled", (QUEUED, 0), (CANCELLED, 0))
    story.evidence.submitted.cancels["cancelled"] = "ended"
    story.task("once", (QUEUED, 0), (RUNNING, 1), (SUCCESS, 1), retry_on_lost=False)
    story.attempt("once", 1, 3)
    counters = {"ended": 1, "failed": 0, "excused": 0, "cancelled": 0, "skipped": 0}
    story.task("job", (QUEUED, 0), (RUNNING, 1), (SUCCESS, 1))
    story.attempt("job", 1, 3)
    log = [row for row in story.evidence.logs if row["task_key"] == 8]
    log[1]["lines"], log[1]["texts"] = 3, [expected_line("job/1", n) for n in (3, 4, 5)]
    story.row("attempts", task_key=8)["log_lines"] = 5
    story.run("run", ("job",), status=3, total=1, **counters)
    story.evidence.submitted.seen["plain"] = (SUCCESS, 0, 1)
    for place, name in enumerate(("first", "second")):
        story.task(name, (1, 0), (QUEUED, 0), (RUNNING, 1), (SUCCESS, 1), group="one")
        story.attempt(name, 1, 3)
        times = {"claimed_at": 10 * place, "ended_at": 10 * place + 9}
        story.evidence.attempts[-1].update(times)
    return story


def rules(story: Story) -> set[str]:
    return {violation.rule for violation in Checker(story.evidence).violations()}


def test_a_good_run_is_not_complained_of():
    assert Checker(good_story().evidence).violations() == []


def test_the_figures_count_what_happened():
    numbers = figures(good_story().evidence)
    assert (numbers["tasks"], numbers["attempts"], numbers["lost"]) == (10, 9, 1)
    assert (numbers["adoptions"], numbers["executions"], numbers["success"]) == (0, 9, 7)


def second_end(story):
    event = copy.deepcopy(story.evidence.events[2])
    story.evidence.events.append(event | {"position": 1000})


def task_gone(story):
    story.evidence.tasks.remove(story.row("tasks", public_id="next"))


def task_of_nobody(story):
    del story.evidence.submitted.tasks["plain"]


def never_ended(story):
    task = story.row("tasks", public_id="plain")
    task["status"] = QUEUED
    story.evidence.events = [e for e in story.evidence.events if e["position"] != 3]


def moved_after_its_end(story):
    data = {"status": RUNNING, "previous": SUCCESS, "exit_code": 0, "attempt": 2}
    event = {"position": 1000, "kind": "task.status", "resource_id": "plain", "data": data}
    story.evidence.events.append(event)


def result_overwritten(story):
    story.row("tasks", public_id="plain")["exit_code"] = 7


def shown_otherwise(story):
    story.evidence.submitted.seen["lost"] = (FAILED, 1, 1)


def ended_as_it_cannot(story):
    story.evidence.submitted.tasks["plain"] = Spec(number=1, at=0, lines=LINES, fails=ALWAYS)


def cancelled_by_nobody(story):
    story.evidence.submitted.cancels.clear()


def attempt_missing(story):
    story.evidence.attempts.remove(story.row("attempts", task_key=2, number=1))


def execution_without_attempt(story):
    story.evidence.journal += ["plain/2 start", "plain/2 end"]


def ran_though_handed_back(story):
    released = story.row("attempts", task_key=2, number=1)
    released["status"], released["started_at"] = ATTEMPT_RELEASED, None


def attempt_ran_twice(story):
    story.evidence.journal.append("plain/1 start")


def ran_again_though_it_must_not(story):
    story.evidence.journal.append("once/2 start")


def success_of_nothing(story):
    story.evidence.journal.remove("plain/1 end")


def superseded_success(story):
    story.row("attempts", task_key=2, number=1)["status"] = 3


def dependent_queued_early(story):
    queued = next(e for e in story.evidence.events if e["position"] == 10)
    queued["position"] = 1


def dependent_ran_early(story):
    story.evidence.journal.remove("next/1 start")
    story.evidence.journal.insert(0, "next/1 start")


def ran_though_its_need_failed(story):
    story.row("tasks", public_id="skipped")["status"] = SUCCESS


def skipped_for_nothing(story):
    story.row("tasks", public_id="bad")["allow_failure"] = True


def place_too_many(story):
    ends = [e for e in story.evidence.events if e["resource_id"] == "first"]
    story.evidence.events.remove(ends[-1])
    story.evidence.events.append(ends[-1])


def ran_side_by_side(story):
    story.evidence.attempts[-1]["claimed_at"] = 5


def cancel_forgotten(story):
    story.evidence.submitted.cancels["bad"] = "told"


def log_with_a_hole(story):
    story.evidence.logs.remove(story.row("logs", task_key=1, first_line=1))


def log_with_a_repeat(story):
    row = story.row("logs", task_key=1, first_line=3)
    row["texts"] = [expected_line("plain/1", 2)]


def log_cut_short(story):
    story.evidence.logs.remove(story.row("logs", task_key=1, first_line=3))
    story.row("attempts", task_key=1)["log_lines"] = 2


def log_given_up(story):
    story.row("attempts", task_key=1)["log_state"] = LOG_INCOMPLETE


def lease_left(story):
    story.row("tasks", public_id="plain")["lease_agent"] = 1


def attempt_open(story):
    story.row("attempts", task_key=1)["status"] = 2


def process_left(story):
    story.evidence.processes.append("pid 7 of plain/1: ['sleep', '600']")


def file_left(story):
    story.evidence.left_over = {"a1": ["plain.1"]}


def counter_wrong(story):
    story.evidence.runs[0]["failed"] = 1


def run_of_nobody(story):
    story.evidence.submitted.runs.clear()
    story.evidence.submitted.tasks["job"] = Spec(number=8, at=0, lines=5)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (second_end, "one end a task"),
        (task_gone, "nothing acknowledged is lost"),
        (task_of_nobody, "nothing is there twice"),
        (never_ended, "every task has ended"),
        (moved_after_its_end, "states follow one another"),
        (result_overwritten, "an end is not overwritten"),
        (shown_otherwise, "an end is not overwritten"),
        (ended_as_it_cannot, "a task ends as its script does"),
        (cancelled_by_nobody, "a task ends as its script does"),
        (attempt_missing, "attempts are numbered"),
        (execution_without_attempt, "every execution is an attempt"),
        (ran_though_handed_back, "every execution is an attempt"),
        (attempt_ran_twice, "no attempt runs twice"),
        (ran_again_though_it_must_not, "no attempt runs twice"),
        (success_of_nothing, "a success has run to its end"),
        (superseded_success, "a success has run to its end"),
        (dependent_queued_early, "dependents wait"),
        (dependent_ran_early, "dependents wait"),
        (ran_though_its_need_failed, "skipped when a need fails"),
        (skipped_for_nothing, "skipped when a need fails"),
        (place_too_many, "a group keeps its limit"),
        (ran_side_by_side, "a group keeps its limit"),
        (cancel_forgotten, "a cancel is kept"),
        (log_with_a_hole, "a log is what was printed"),
        (log_with_a_repeat, "a log is what was printed"),
        (log_cut_short, "a log is what was printed"),
        (log_given_up, "a log is what was printed"),
        (lease_left, "nothing is held"),
        (attempt_open, "nothing is held"),
        (process_left, "no process is left"),
        (file_left, "no file is left"),
        (counter_wrong, "runs count right"),
        (run_of_nobody, "nothing is there twice"),
    ],
)
def test_known_bad(spoil, rule):
    story = good_story()
    spoil(story)
    assert rule in rules(story)
