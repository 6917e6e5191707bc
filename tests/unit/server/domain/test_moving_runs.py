"""A run goes along: conditions, gates between large stages, turns in a group of runs."""

from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.canceling import StopPipeline
from server.domain.gate import PAIRS_WITHOUT
from server.domain.group import Membership
from server.domain.labels import Selector
from server.domain.lease import LeaseRef
from server.domain.pipeline import Definition, Job, Step, order_of
from server.domain.run import RunStatus
from server.domain.submitting import UpdateTask
from server.domain.task import TaskSpec, TaskStatus
from server.domain.waiting import WaitingFor
from tests.fakes.core import NAMESPACE, Core, job, parallel, serial

FAILING = "failure()"


def ended(core, tasks):
    return [core.status(task).name for task in tasks]


def run_to_end(core, tasks, fails=()):
    """Have an agent do what becomes ready until nothing is left; `fails` are names of jobs."""
    while any(core.task(task).ready for task in tasks):
        end_one(core, fails)


def end_one(core, fails=()):
    """Have agent `a` do the next job that is ready."""
    (given,) = core.claim()
    failed = core.task(given.task_id).name in fails
    status = TaskStatus.FAILED if failed else TaskStatus.SUCCESS
    core.report(LeaseRef(given.task_id, given.lease_id), status)


def test_a_job_whose_condition_does_not_hold_is_left_out_and_holds_nobody_up(core):
    made = core.pipeline(
        serial("s", job("a", condition="branch == 'dev'"), job("b"), job("c", condition="True"))
    )
    run_id, tasks = core.trigger(made, branch="main")
    run_to_end(core, tasks)
    assert ended(core, tasks) == ["SKIPPED", "SUCCESS", "SUCCESS"]
    assert core.task(tasks[0]).error == "its condition does not hold: branch == 'dev'"
    assert core.run(run_id).status is RunStatus.SUCCESS
    assert core.run(run_id).left_out == 1


def test_a_run_that_leaves_all_out_has_succeeded_at_once(core):
    made = core.pipeline(parallel("s", job("a", condition="False"), job("b", condition="False")))
    run_id, tasks = core.trigger(made)
    assert ended(core, tasks) == ["SKIPPED", "SKIPPED"]
    assert core.run(run_id).status is RunStatus.SUCCESS


def test_a_job_that_asks_for_failures_runs_after_one(core):
    made = core.pipeline(
        serial("one", job("a")),
        parallel(
            "two",
            job("b"),
            job("tell", condition=FAILING, after_failure=True),
            job("tidy", condition="always()", after_failure=True),
        ),
        serial("three", job("late", condition=FAILING, after_failure=True)),
    )
    run_id, tasks = core.trigger(made)
    run_to_end(core, tasks, fails={"a"})
    assert ended(core, tasks) == ["FAILED", "SKIPPED", "SUCCESS", "SUCCESS", "SUCCESS"]
    assert core.run(run_id).status is RunStatus.FAILED
    run_id, tasks = core.trigger(made)
    run_to_end(core, tasks)
    assert ended(core, tasks) == ["SUCCESS", "SUCCESS", "SKIPPED", "SUCCESS", "SKIPPED"]
    assert core.run(run_id).status is RunStatus.SUCCESS


def test_a_condition_reads_results_of_what_the_job_waits_for(core):
    made = core.pipeline(
        parallel("one", job("a", allow_failure=True), *(job(f"x ({n})", base="x") for n in (1, 2))),
        parallel(
            "two",
            job("bad", "a", condition="needs['a']['result'] == 'failed'"),
            job("good", "a", condition="needs['a']['result'] == 'success'"),
            job("all", "x (1)", "x (2)", condition="needs['x']['result'] == 'success'"),
        ),
    )
    run_id, tasks = core.trigger(made)
    run_to_end(core, tasks, fails={"a"})
    assert ended(core, tasks)[3:] == ["SUCCESS", "SKIPPED", "SUCCESS"]
    assert core.run(run_id).status is RunStatus.PARTIAL


def test_a_condition_without_a_value_fails_its_job_and_says_why(core):
    made = core.pipeline(serial("s", job("a", condition="nonsense"), job("b")))
    run_id, tasks = core.trigger(made)
    assert ended(core, tasks) == ["FAILED", "SKIPPED"]
    assert "nonsense" in core.task(tasks[0]).error
    assert core.run(run_id).status is RunStatus.FAILED


def test_values_are_filled_in_when_the_job_gets_ready_but_not_those_given(core):
    made = core.pipeline(
        serial(
            "s",
            job("a"),
            job("b", env={"R": "${{ needs['a']['result'] }}!", "GIVEN": "${{ branch }}"}),
        )
    )
    _, tasks = core.trigger(made, env={"GIVEN": "${{ 1 + 1 }}"})
    run_to_end(core, tasks)
    env = TaskSpec.from_json(core.task(tasks[1]).spec).env
    assert (env["R"], env["GIVEN"]) == ("success!", "${{ 1 + 1 }}")


def test_a_value_that_cannot_be_filled_in_names_its_variable(core):
    made = core.pipeline(serial("s", job("a", env={"V": "${{ nothing }}"})))
    _, tasks = core.trigger(made)
    assert core.status(tasks[0]) is TaskStatus.FAILED
    assert core.task(tasks[0]).error.startswith("env.V: ")


def test_a_task_that_was_changed_meanwhile_still_goes_on(core):
    made = core.pipeline(serial("s", job("a"), job("b", env={"R": "${{ branch }}"})))
    _, tasks = core.trigger(made)
    core.do(UpdateTask(NAMESPACE, tasks[1], env={"OTHER": "x"}))
    run_to_end(core, tasks)
    assert ended(core, tasks) == ["SUCCESS", "SUCCESS"]


def wide(core, **chosen):
    first = [job(f"a{n}", allow_failure=n == 1) for n in range(10)]
    second = [job(f"b{n}") for n in range(9)]
    tell = job("tell", condition=FAILING, after_failure=True)
    return core.pipeline(parallel("one", *first), parallel("two", *second, tell), **chosen)


def test_a_large_stage_waits_behind_one_gate(core):
    run_id, tasks = core.trigger(wide(core))
    assert len(core.tables.dependencies) == 0
    assert core.explain(tasks[10]).sentence == "It waits for 10 jobs of the stage before."
    run_to_end(core, tasks, fails={"a1"})
    assert ended(core, tasks[10:]) == ["SUCCESS"] * 9 + ["SKIPPED"]
    assert core.run(run_id).status is RunStatus.PARTIAL


def test_a_failure_before_a_gate_skips_what_is_behind_it(core):
    run_id, tasks = core.trigger(wide(core))
    run_to_end(core, tasks, fails={"a2", "a3"})
    assert ended(core, tasks[10:]) == ["SKIPPED"] * 9 + ["SUCCESS"]
    assert core.task(tasks[10]).error in ("a2 ended in FAILED", "a3 ended in FAILED")
    assert core.run(run_id).status is RunStatus.FAILED


def test_stopping_a_run_cancels_what_is_behind_a_gate(core):
    made = wide(core)
    run_id, tasks = core.trigger(made)
    core.do(StopPipeline(NAMESPACE, made, run_id))
    assert set(ended(core, tasks)) == {"CANCELLED"}
    assert core.run(run_id).status is RunStatus.CANCELLED


def test_runs_of_a_group_take_turns(core):
    made = core.pipeline(
        parallel("s", job("a"), job("b", condition="True"), job("c", "a")),
        group=Membership("deploy"),
    )
    first, one = core.trigger(made)
    second, two = core.trigger(made)
    third, three = core.trigger(made)
    assert ended(core, two) == ["PENDING"] * 3
    explanation = core.explain(two[0])
    assert explanation.waiting_for is WaitingFor.TURN_OF_RUN
    assert f"run 1 ({first})" in explanation.sentence
    run_to_end(core, one, fails={"a"})
    assert core.run(first).status is RunStatus.FAILED
    assert ended(core, two) == ["QUEUED", "QUEUED", "PENDING"]
    core.do(StopPipeline(NAMESPACE, made, third))
    assert set(ended(core, three)) == {"CANCELLED"}
    run_to_end(core, two)
    assert core.run(second).status is RunStatus.SUCCESS
    assert core.run(third).status is RunStatus.CANCELLED


def test_the_newest_run_of_a_group_cancels_the_others_where_that_is_asked_for(core):
    made = core.pipeline(serial("s", job("a")), group=Membership("g", cancels_older=True))
    first, _ = core.trigger(made)
    second, two = core.trigger(made)
    assert core.run(first).status is RunStatus.CANCELLED
    assert ended(core, two) == ["QUEUED"]
    (given,) = core.claim()
    third, three = core.trigger(made)
    assert ended(core, three) == ["PENDING"]  # its turn comes when the other's agent has stopped
    core.report(LeaseRef(given.task_id, given.lease_id), TaskStatus.CANCELLED)
    assert core.run(second).status is RunStatus.CANCELLED
    assert ended(core, three) == ["QUEUED"]
    assert core.run(third).status is RunStatus.PENDING


def test_a_job_with_a_plugin_waits_and_says_so(core):
    steps = (Step(commands=("make",)), Step(uses="notify@1.0.0", settings={"to": "olga"}))
    made = core.pipeline(serial("s", Job("tell", steps=steps)))
    _, (task,) = core.trigger(made)
    assert core.status(task) is TaskStatus.QUEUED
    selector = Selector.from_canonical(core.tables.classes[core.task(task).class_key])
    assert not selector.matches(core.agent("a").effective_labels)
    explanation = core.explain(task)
    assert explanation.waiting_for is WaitingFor.PLUGIN
    assert explanation.sentence.startswith("It uses notify@1.0.0, and no connected agent")
    assert TaskSpec.from_json(core.task(task).spec).steps[1]["settings"] == {"to": "olga"}


# ---- a reference: what a run must amount to, in a few lines


@st.composite
def graphs(draw):
    """Return stages of jobs as (name, needs, condition, allow_failure, fails)."""
    names, stages = [], []
    for _ in range(draw(st.integers(1, 4))):
        jobs = []
        for _ in range(draw(st.sampled_from([1, 2, 3, 9]))):
            name = f"j{len(names)}"
            needs = draw(st.lists(st.sampled_from(names), max_size=2)) if names else []
            condition = draw(st.sampled_from(["", "", "", "True", "False", "always()", FAILING]))
            jobs.append((name, needs, condition, draw(st.booleans()), draw(st.integers(0, 3)) == 0))
            names.append(name)
        stages.append((draw(st.booleans()), jobs))
    return stages


def reference(needs, jobs):
    """Return how each job ends, and what the run amounts to; needs come before what needs them."""
    ends, well = {}, {}
    for name, _, condition, allowed, fails in jobs:
        before = all(well[other] for other in needs[name])
        asks = condition in ("always()", FAILING)
        if not before and not asks:
            ends[name], well[name] = "SKIPPED", allowed
            continue
        holds = {"False": False, FAILING: not before}.get(condition, True)
        ends[name] = "SKIPPED" if not holds else "FAILED" if fails else "SUCCESS"
        well[name] = not holds or not fails or allowed
    left_out = {
        name
        for name, _, condition, *_ in jobs
        if condition in ("always()", FAILING) or all(well[other] for other in needs[name])
    }
    allowed = {j[0] for j in jobs if j[3]}
    failed = {name for name, end in ends.items() if end == "FAILED"}
    skipped = {name for name, end in ends.items() if end == "SKIPPED"} - left_out
    if failed - allowed:
        return ends, "FAILED"
    if failed:
        return ends, "PARTIAL"
    return ends, "FAILED" if skipped else "SUCCESS"


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_random_runs_end_as_the_reference_says(graph):
    core = Core()
    core.join("a")
    stages = [
        (parallel if side_by_side else serial)(
            f"s{place}",
            *(
                job(
                    name,
                    *needs,
                    condition=condition,
                    after_failure=condition in ("always()", FAILING),
                    allow_failure=allowed,
                )
                for name, needs, condition, allowed, _ in jobs
            ),
        )
        for place, (side_by_side, jobs) in enumerate(graph)
    ]
    made = core.pipeline(*stages)
    run_id, tasks = core.trigger(made)
    flat = [each for _, jobs in graph for each in jobs]
    run_to_end(core, tasks, fails={name for name, *_, fails in flat if fails})
    names = [each[0] for each in flat]
    expected, status = reference(whole_order(stages), flat)
    assert dict(zip(names, ended(core, tasks), strict=True)) == expected
    assert core.run(run_id).status.name == status


def whole_order(stages):
    """Return which jobs each job waits for, gates spread out."""
    order = order_of(Definition(tuple(stages)))
    needs = {name: list(others) for name, others in order.needs.items()}
    for last, first in order.gates:
        assert len(last) * len(first) > PAIRS_WITHOUT
        for name in first:
            needs[name] += last
    return needs
