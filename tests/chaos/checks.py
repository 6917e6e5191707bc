"""The promises, held against what a run has left. Pure: doctored evidence must be complained of.

The rules are written down anew here: a checker that asked the code under test what is right would
agree with it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.evidence import Evidence, Row
from tests.chaos.workload import GROUPS, Spec, expected_line

PENDING, QUEUED, RUNNING, SUCCESS, FAILED, CANCELLED, TIMEOUT, SKIPPED = range(1, 9)
NAMES = ("", "PENDING", "QUEUED", "RUNNING", "SUCCESS", "FAILED", "CANCELLED", "TIMEOUT", "SKIPPED")
MOVES = {
    0: {PENDING, QUEUED, SKIPPED},  # what it needs may have failed before
    PENDING: {QUEUED, SKIPPED, CANCELLED, TIMEOUT},
    QUEUED: {RUNNING, SKIPPED, CANCELLED, TIMEOUT, FAILED},
    RUNNING: {QUEUED, PENDING, SUCCESS, FAILED, CANCELLED, TIMEOUT},
}
ATTEMPT_RUNNING, ATTEMPT_SUCCESS, ATTEMPT_LOST, ATTEMPT_RELEASED = 2, 3, 7, 8
LOG_COMPLETE, LOG_INCOMPLETE = 2, 3
RUN_SUCCESS, RUN_FAILED, RUN_CANCELLED, RUN_PARTIAL = 3, 4, 5, 6


@dataclass(frozen=True)
class Violation:
    """A promise that was broken, of what, and how one sees it."""

    rule: str
    subject: str
    evidence: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.subject}: {self.evidence}"


Found = Iterator[tuple[str, str]]


class Checker:
    """All checks over one run's evidence."""

    def __init__(self, evidence: Evidence):
        self.evidence = evidence
        self.tasks = {row["public_id"]: row for row in evidence.tasks}
        self.by_key = {row["key"]: row for row in evidence.tasks}
        self.attempts: dict[str, list[Row]] = defaultdict(list)
        for row in evidence.attempts:
            if row["task_key"] in self.by_key:
                self.attempts[self.by_key[row["task_key"]]["public_id"]].append(row)
        self._lines = set(evidence.journal)
        self.changes: dict[str, list[Row]] = defaultdict(list)
        for event in evidence.events:
            if event["kind"] == "task.status":
                self.changes[event["resource_id"]].append(event)

    def violations(self) -> list[Violation]:
        """Return every promise that was broken."""
        rules: dict[str, Callable[[], Found]] = {
            "nothing acknowledged is lost": self._lost,
            "nothing is there twice": self._unknown,
            "every task has ended": self._unended,
            "one end a task": self._ends,
            "states follow one another": self._chains,
            "an end is not overwritten": self._overwritten,
            "a task ends as its script does": self._outcomes,
            "attempts are numbered": self._numbers,
            "every execution is an attempt": self._executions,
            "no attempt runs twice": self._twice,
            "a success has run to its end": self._successes,
            "a group keeps its limit": self._groups,
            "dependents wait": self._order,
            "skipped when a need fails": self._skips,
            "a cancel is kept": self._cancels,
            "a log is what was printed": self._logs,
            "nothing is held": self._held,
            "no process is left": self._processes,
            "no file is left": self._files,
            "runs count right": self._runs,
        }
        return [
            Violation(rule, subject, evidence)
            for rule, check in rules.items()
            for subject, evidence in check()
        ]

    # ---- tasks

    def _spec(self, task_id: str) -> Spec | None:
        return self.evidence.submitted.tasks.get(task_id)

    def _acknowledged(self) -> set[str]:
        jobs = {job for jobs in self.evidence.submitted.runs.values() for job in jobs}
        return jobs | self.evidence.submitted.tasks.keys()

    def _lost(self) -> Found:
        for task_id in sorted(self._acknowledged() - self.tasks.keys()):
            yield task_id, "acknowledged, but not in the database"

    def _unknown(self) -> Found:
        for task_id in sorted(self.tasks.keys() - self._acknowledged()):
            yield task_id, f"in the database, but nobody was told so: {self.tasks[task_id]['name']}"
        for run in self.evidence.runs:
            if run["public_id"] not in self.evidence.submitted.runs:
                yield run["public_id"], "a run that nobody was told of"

    def _unended(self) -> Found:
        for task_id, task in self.tasks.items():
            if task["status"] < SUCCESS:
                yield task_id, self._story(task_id)

    def _ends(self) -> Found:
        for task_id in self.tasks:
            ends = [event for event in self.changes[task_id] if event["data"]["status"] >= SUCCESS]
            if len(ends) != 1:
                yield task_id, f"{len(ends)} end events; {self._story(task_id)}"

    def _chains(self) -> Found:
        for task_id in self.tasks:
            before = 0
            for event in self.changes[task_id]:
                data = event["data"]
                if data["previous"] != before or data["status"] not in MOVES.get(before, ()):
                    yield task_id, self._story(task_id)
                    break
                before = data["status"]

    def _overwritten(self) -> Found:
        for task_id, task in self.tasks.items():
            end = (task["status"], task["exit_code"], task["attempt"])
            seen = self.evidence.submitted.seen.get(task_id)
            if seen is not None and seen != end:
                yield task_id, f"a reader was shown {seen}, the database says {end}"
            if self.changes[task_id]:
                data = self.changes[task_id][-1]["data"]
                told = (data["status"], data["exit_code"], data["attempt"])
                if told != end:
                    yield task_id, f"its last event tells {told}, the database says {end}"

    def _outcomes(self) -> Found:
        for task_id, task in self.tasks.items():
            spec = self._spec(task_id)
            if spec is None or task["status"] in (SKIPPED, CANCELLED):
                continue
            spent = task["infra_retries"] > self.evidence.infra_retry_limit
            if NAMES[task["status"]] not in spec.may_end and not spent:
                yield task_id, f"may end {sorted(spec.may_end)}; {self._story(task_id)}"
        for task_id, task in self.tasks.items():
            spec = self._spec(task_id)
            by_newcomer = spec is not None and spec.group and "takes its place" in task["error"]
            asked = task_id in self.evidence.submitted.cancels or by_newcomer
            if task["status"] == CANCELLED and not asked:
                yield task_id, f"nobody cancelled it; {self._story(task_id)}"

    # ---- attempts and executions

    def _numbers(self) -> Found:
        for task_id, task in self.tasks.items():
            numbers = [attempt["number"] for attempt in self.attempts[task_id]]
            if numbers != list(range(1, task["attempt"] + 1)):
                yield task_id, f"attempts {numbers}, the task counts {task['attempt']}"
            epochs = [attempt["epoch"] for attempt in self.attempts[task_id]]
            if epochs != sorted(set(epochs)):
                yield task_id, f"leases do not grow: {epochs}"

    def _journal(self) -> Iterator[tuple[int, str, int, str]]:
        """Yield place, task id, attempt number and word of each line."""
        for place, line in enumerate(self.evidence.journal):
            name, _, word = line.partition(" ")
            task_id, _, number = name.rpartition("/")
            yield place, task_id, int(number) if number.isdecimal() else 0, word

    def _executions(self) -> Found:
        known = {
            (task_id, attempt["number"]): attempt
            for task_id, attempts in self.attempts.items()
            for attempt in attempts
        }
        for place, task_id, number, word in self._journal():
            attempt = known.get((task_id, number))
            if word not in ("start", "end") or attempt is None:
                yield task_id, f"line {place + 1} of the journal: {self.evidence.journal[place]!r}"
            # A drain also gives back what runs: its start is on record then.
            elif attempt["status"] == ATTEMPT_RELEASED and attempt["started_at"] is None:
                text = f"attempt {number} ran, and is on record as handed back before it started"
                yield task_id, f"{text}; {self._story(task_id)}"

    def _twice(self) -> Found:
        for line, count in Counter(self.evidence.journal).items():
            if count > 1:
                task_id = line.partition("/")[0]
                yield task_id, f"{count} times {line!r}; {self._story(task_id)}"
        for task_id, spec in self.evidence.submitted.tasks.items():
            if not spec.retry_on_lost and not spec.retries:
                starts = [
                    n for _, t, n, word in self._journal() if t == task_id and word == "start"
                ]
                if len(set(starts)) > 1:
                    yield task_id, f"must not run again when it was lost, but ran as {starts}"

    def _successes(self) -> Found:
        ended = {(t, n) for _, t, n, word in self._journal() if word == "end"}
        for task_id, task in self.tasks.items():
            spec = self._spec(task_id)
            if task["status"] != SUCCESS or (spec is not None and spec.executor):
                continue
            if (task_id, task["attempt"]) not in ended:
                yield task_id, f"its script never came to its end; {self._story(task_id)}"
        for task_id, attempts in self.attempts.items():
            good = [a["number"] for a in attempts if a["status"] == ATTEMPT_SUCCESS]
            task = self.tasks[task_id]
            if good and (good != [task["attempt"]] or task["status"] != SUCCESS):
                yield task_id, f"attempts {good} succeeded; {self._story(task_id)}"

    def _groups(self) -> Found:
        """Events tell who held a place when; the attempts tell what ran side by side."""
        for group, limit in GROUPS.items():
            members = {t for t, s in self.evidence.submitted.tasks.items() if s.group == group}
            yield from self._places(group, limit, members)
            yield from self._side_by_side(group, limit, members)

    def _places(self, group: str, limit: int, members: set[str]) -> Found:
        holders: set[str] = set()
        for event in self.evidence.events:
            if event["kind"] != "task.status" or event["resource_id"] not in members:
                continue
            holds = event["data"]["status"] in (QUEUED, RUNNING)
            (holders.add if holds else holders.discard)(event["resource_id"])
            if holds and len(holders) > limit:
                yield (
                    group,
                    f"{sorted(holders)} held its {limit} places at event {event['position']}",
                )

    def _side_by_side(self, group: str, limit: int, members: set[str]) -> Found:
        """An attempt goes on from its claim to its end, as the server has written them down."""
        spans = [
            (attempt["claimed_at"], attempt["ended_at"], task_id, attempt["number"])
            for task_id in members
            for attempt in self.attempts[task_id]
        ]
        for start, _, task_id, number in spans:
            others = {t for begin, end, t, _ in spans if begin <= start < (end or start)}
            if len(others | {task_id}) > limit:
                yield group, f"{task_id}/{number} was handed out beside {sorted(others)}"

    # ---- what hangs on what

    def _needs(self) -> dict[str, list[str]]:
        needs: dict[str, list[str]] = defaultdict(list)
        for row in self.evidence.dependencies:
            need, task = self.by_key.get(row["depends_on"]), self.by_key.get(row["task_key"])
            if need is not None and task is not None:
                needs[task["public_id"]].append(need["public_id"])
        return needs

    def _order(self) -> Found:
        started = {(t, n): place for place, t, n, word in self._journal() if word == "start"}
        first: dict[str, int] = {}
        for (task_id, _), place in started.items():
            first[task_id] = min(place, first.get(task_id, place))
        done = {(t, n): place for place, t, n, word in self._journal() if word == "end"}
        for task_id, needs in self._needs().items():
            ready = [e["position"] for e in self.changes[task_id] if e["data"]["status"] == QUEUED]
            for need_id in needs:
                need = self.tasks[need_id]
                ends = [e for e in self.changes[need_id] if e["data"]["status"] >= SUCCESS]
                if ready and (not ends or ends[0]["position"] > min(ready)):
                    text = f"was queued before {need_id} had ended"
                    yield task_id, f"{text}; {self._story(task_id)}; {self._story(need_id)}"
                if ready and need["status"] != SUCCESS and not need["allow_failure"]:
                    yield task_id, f"was queued although {need_id} ended {NAMES[need['status']]}"
                end = done.get((need_id, need["attempt"]), 0)
                if need["status"] == SUCCESS and first.get(task_id, end) < end:
                    yield task_id, f"started before {need_id} had come to its end"

    def _skips(self) -> Found:
        needs = self._needs()
        for task_id, task in self.tasks.items():
            bad = [
                need
                for need in needs.get(task_id, ())
                if self.tasks[need]["status"] != SUCCESS and not self.tasks[need]["allow_failure"]
            ]
            if task["status"] == SKIPPED and not bad:
                yield task_id, f"skipped although all it needs went well; {self._story(task_id)}"
            if bad and task["status"] not in (SKIPPED, CANCELLED):
                yield task_id, f"ended {NAMES[task['status']]} although {bad} did not go well"

    def _cancels(self) -> Found:
        for task_id, said in self.evidence.submitted.cancels.items():
            task = self.tasks.get(task_id)
            if task is None:
                continue
            status = task["status"]
            kept = {
                "ended": status == CANCELLED,
                # SKIPPED: handed back by its agent it would be cancelled, not skipped.
                "told": status in (CANCELLED, SUCCESS),
            }.get(said, status != CANCELLED)
            if not kept:
                yield task_id, f"the caller was told {said!r}; {self._story(task_id)}"

    # ---- logs

    def _logs(self) -> Found:
        stored: dict[tuple[int, int], list[str]] = defaultdict(list)
        for row in self.evidence.logs:
            lines = stored[row["task_key"], row["attempt"]]
            task = self.by_key.get(row["task_key"], {})
            task_id = task.get("public_id", "no task")
            if row["first_line"] != len(lines) + 1 or row["lines"] != len(row["texts"]):
                text = f"batch at {row['first_line']} with {row['lines']} lines after {len(lines)}"
                yield f"{task_id}/{row['attempt']}", text
            lines += row["texts"]
        for task_id, attempts in self.attempts.items():
            for attempt in attempts:
                lines = stored[attempt["task_key"], attempt["number"]]
                yield from self._log(task_id, attempt, lines)

    def _log(self, task_id: str, attempt: Row, lines: list[str]) -> Found:
        name = f"{task_id}/{attempt['number']}"
        state = attempt["log_state"]
        if attempt["log_lines"] != len(lines):
            yield name, f"{len(lines)} lines stored, {attempt['log_lines']} counted"
        expected = [expected_line(name, number + 1) for number in range(len(lines))]
        if lines != expected:
            at = next(i for i, line in enumerate(lines) if line != expected[i])
            yield name, f"line {at + 1} is {lines[at]!r}, printed was {expected[at]!r}"
        spec = self._spec(task_id)
        printed = 5 if spec is None else 0 if spec.executor else spec.lines
        # What was in the pipe of a supervisor that was killed is gone: such attempts are LOST.
        to_its_end = attempt["status"] != ATTEMPT_LOST and f"{name} end" in self._lines
        if to_its_end and state == LOG_COMPLETE and len(lines) != printed:
            yield name, f"COMPLETE with {len(lines)} of {printed} lines"
        if attempt["status"] == ATTEMPT_SUCCESS and state != LOG_COMPLETE:
            yield name, f"succeeded, and its log is in state {state} with {len(lines)} lines"

    # ---- what must be gone

    def _held(self) -> Found:
        for task_id, task in self.tasks.items():
            if task["lease_agent"] is not None or task["lease_session"] is not None:
                yield task_id, f"is leased to {task['last_agent_id']}; {self._story(task_id)}"
            if task["due_at"] is not None:
                yield task_id, f"is still due at {task['due_at']}; {self._story(task_id)}"
        for task_id, attempts in self.attempts.items():
            for attempt in attempts:
                if attempt["status"] < ATTEMPT_SUCCESS:
                    yield task_id, f"attempt {attempt['number']} is open; {self._story(task_id)}"

    def _processes(self) -> Found:
        for process in self.evidence.processes:
            yield "this host", process

    def _files(self) -> Found:
        for agent, names in self.evidence.left_over.items():
            for name in names:
                task = self.tasks.get(name.removeprefix(".trash-").rpartition(".")[0])
                story = self._story(task["public_id"]) if task else "of no task"
                yield agent, f"spool/{name}; {story}"

    # ---- runs

    def _runs(self) -> Found:
        for run_id, jobs in self.evidence.submitted.runs.items():
            run = next((run for run in self.evidence.runs if run["public_id"] == run_id), None)
            if run is None:
                yield run_id, "acknowledged, but not in the database"
                continue
            rows = [row for row in self.evidence.tasks if row["run_key"] == run["key"]]
            if {row["public_id"] for row in rows} != set(jobs):
                yield run_id, f"has {len(rows)} jobs, {len(jobs)} were acknowledged"
            wrong = {
                name: (run[name], count)
                for name, count in _counted(rows).items()
                if run[name] != count
            }
            if wrong or run["total"] != len(rows):
                yield run_id, f"says and is: {wrong}, total {run['total']} of {len(rows)}"
            if run["status"] != _run_status(rows):
                yield run_id, f"stands at {run['status']}, its jobs amount to {_run_status(rows)}"
            ends = [
                event
                for event in self.evidence.events
                if event["kind"] == "run.status"
                and event["resource_id"] == run_id
                and event["data"]["status"] >= RUN_SUCCESS
            ]
            if len(ends) != 1:
                yield run_id, f"{len(ends)} end events"

    # ---- words

    def _story(self, task_id: str) -> str:
        """Return what the records tell of a task."""
        task = self.tasks.get(task_id)
        if task is None:
            return "not on record"
        events = [
            f"{e['position']}:{NAMES[e['data']['status']]}#{e['data']['attempt']}"
            for e in self.changes[task_id]
        ]
        attempts = [
            f"#{a['number']} {a['agent_id']} status {a['status']} {a['claimed_at']}"
            f"/{a['started_at']}/{a['ended_at']} {a['cause']!r} log {a['log_state']}"
            for a in self.attempts[task_id]
        ]
        lines = [line for line in self.evidence.journal if line.startswith(task_id)]
        return (
            f"{task['name']} is {NAMES[task['status']]}, attempt {task['attempt']}, "
            f"infra {task['infra_retries']}, error {task['error']!r}; events {events}; "
            f"attempts {attempts}; journal {lines}; spec {self._spec(task_id)}"
        )


def _counted(rows: list[Row]) -> dict[str, int]:
    bad = [row for row in rows if row["status"] in (FAILED, TIMEOUT)]
    return {
        "ended": sum(row["status"] >= SUCCESS for row in rows),
        "failed": sum(not row["allow_failure"] for row in bad),
        "excused": sum(bool(row["allow_failure"]) for row in bad),
        "cancelled": sum(row["status"] == CANCELLED for row in rows),
        "skipped": sum(row["status"] == SKIPPED for row in rows),
    }


def _run_status(rows: list[Row]) -> int:
    counts = _counted(rows)
    if counts["failed"]:
        return RUN_FAILED
    if counts["cancelled"]:
        return RUN_CANCELLED
    if counts["excused"]:
        return RUN_PARTIAL
    return RUN_FAILED if counts["skipped"] else RUN_SUCCESS


def figures(evidence: Evidence) -> dict[str, int]:
    """Return what happened, in numbers."""
    checker = Checker(evidence)
    attempts = Counter(row["status"] for row in evidence.attempts)
    runnings = Counter(
        (event["resource_id"], event["data"]["attempt"])
        for event in evidence.events
        if event["kind"] == "task.status" and event["data"]["status"] == RUNNING
    )
    statuses = Counter(NAMES[row["status"]].lower() for row in evidence.tasks)
    return {
        "tasks": len(checker.tasks),
        "runs": len(evidence.runs),
        "attempts": len(evidence.attempts),
        "executions": sum(line.endswith(" start") for line in evidence.journal),
        "adoptions": sum(count - 1 for count in runnings.values()),
        "lost": attempts[ATTEMPT_LOST],
        "released": attempts[ATTEMPT_RELEASED],
        "logs_incomplete": sum(row["log_state"] == LOG_INCOMPLETE for row in evidence.attempts),
        "given_up": sum(
            row["infra_retries"] > evidence.infra_retry_limit for row in evidence.tasks
        ),
        **dict(sorted(statuses.items())),
    }
