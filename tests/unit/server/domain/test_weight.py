"""What would not fit a message, a page or a name is refused or cut before it does harm."""

import pytest

from server.domain.canceling import StopPipeline
from server.domain.checks import LOAD_LIMIT
from server.domain.defining import CreatePipeline, Description
from server.domain.errors import Invalid, NotFound
from server.domain.label_syntax import LARGEST_SET, MOST_LABELS, check_labels
from server.domain.lease import LeaseRef
from server.domain.ledger import Ledger
from server.domain.pipeline import Definition
from server.domain.placement import FRAME_SIZE, Offer, place
from server.domain.registering import UpdateLabels
from server.domain.submitting import CreateTask, NewTask, UpdateTask, default_name
from server.domain.task import TaskSpec, TaskStatus
from server.domain.triggering import Trigger
from tests.fakes.core import NAMESPACE, SPEC, job, parallel
from tests.records import task

HALF = "x" * (LOAD_LIMIT // 2 + 1)
# One variable may have 128 KiB at most, so it takes some to be heavy.
HEAVY_ENV = {f"V{n}": "x" * 100_000 for n in range(LOAD_LIMIT // 100_000 + 1)}


def fields(error):
    return [violation.field for violation in error.value.violations]


# ---- scripts and environments


@pytest.mark.parametrize(
    "spec",
    [
        TaskSpec((HALF, HALF)),
        TaskSpec(("true",), env=HEAVY_ENV),
        TaskSpec((HALF,), env=dict(list(HEAVY_ENV.items())[:3])),
    ],
)
def test_a_task_too_heavy_for_a_frame_is_refused(spec):
    with pytest.raises(Invalid) as error:
        NewTask("x", spec).check()
    assert fields(error) == ["commands"]


def test_a_change_cannot_make_a_task_too_heavy_either(core):
    task_id = core.create(spec=TaskSpec((HALF,)))
    with pytest.raises(Invalid):
        core.do(UpdateTask(NAMESPACE, task_id, env=dict(list(HEAVY_ENV.items())[:3])))
    assert TaskSpec.from_json(core.task(task_id).spec).env == {}


def test_a_job_with_the_pipelines_environment_counts_together():
    definition = Definition((parallel("s", job("j")),), env=HEAVY_ENV)
    with pytest.raises(Invalid) as error:
        CreatePipeline(NAMESPACE, "p", Description("name", definition)).check()
    assert fields(error) == ["stages[0].jobs[0].commands"]


def test_a_trigger_cannot_bring_more_than_a_task_may_weigh():
    with pytest.raises(Invalid) as error:
        Trigger(env=HEAVY_ENV).check()
    assert fields(error) == ["env"]


def test_a_frame_takes_no_more_than_fits_and_the_rest_comes_next():
    rows = [task(n, class_key="c", spec="x" * (FRAME_SIZE // 3)) for n in range(1, 8)]
    offer = Offer(1, "a", "s", 7, frozenset("c"), 1)
    placed = [row.key for row, _ in place(rows, [offer], {})]
    assert placed == [1, 2, 3, 4]


def test_one_task_that_fills_a_frame_is_still_handed_out():
    rows = [task(n, class_key="c", spec="x" * (2 * FRAME_SIZE)) for n in (1, 2)]
    offer = Offer(1, "a", "s", 7, frozenset("c"), 1)
    assert [row.key for row, _ in place(rows, [offer], {})] == [1]


# ---- labels and names


@pytest.mark.parametrize(
    "labels",
    [
        {f"k{n}": "" for n in range(MOST_LABELS + 1)},
        {f"k{n}": "x" * 256 for n in range(LARGEST_SET // 256 + 1)},
    ],
)
def test_a_label_set_has_bounds(labels):
    assert [violation.field for violation in check_labels(labels, "labels")] == ["labels"]


def test_a_label_set_within_them_is_taken():
    assert check_labels({f"k{n}": "v" for n in range(MOST_LABELS)}, "labels") == []


def test_a_name_made_from_a_script_shows_no_control_characters():
    assert default_name(("  echo \x1b[31mred\x07\necho more",)) == "echo [31mred"
    assert default_name(("\x01",)) == "unnamed"


# ---- whose it is


def test_labels_of_an_agent_are_changed_from_its_own_namespace_only(core):
    with pytest.raises(NotFound):
        core.do(UpdateLabels("other", "a", {"k": "v"}, merge=True))
    assert core.agent("a").overlay == {}


def test_lines_under_another_tasks_lease_are_not_kept(core):
    task_id, _ = core.running()
    core.append(LeaseRef(task_id, "another.1"), 1, ["stray"])
    assert core.lines(task_id) == []


# ---- the rest of a stopped run


@pytest.mark.parametrize("jobs", [("first", "second"), ("second", "first")])
def test_what_waits_for_another_job_is_cancelled_with_the_run_and_not_skipped(core, jobs):
    """Wherever in its stage the other stands: a job may wait for a later one."""
    needs = {"first": ("second",), "second": ()}
    stage = parallel("s", *(job(name, *needs[name]) for name in jobs))
    pipeline_id = core.pipeline(stage)
    run_id, tasks = core.trigger(pipeline_id)
    core.do(StopPipeline(NAMESPACE, pipeline_id, run_id))
    assert {core.status(task_id) for task_id in tasks} == {TaskStatus.CANCELLED}


# ---- ids that do not exist


def test_an_unknown_id_is_looked_for_once_a_transaction(core):
    asked = []

    def count(source):
        search = source.tasks
        source.tasks = lambda ids: asked.append(list(ids)) or search(ids)
        ledger = Ledger(source, core.clock.now(), core.policy)
        ledger.prefetch_tasks(["gone", "away"])
        assert [ledger.find_task(name) for name in ("gone", "away", "gone")] == [None] * 3

    core.database.transact_now(count)
    assert asked == [["gone", "away"]]


def test_an_id_that_was_looked_for_in_vain_is_found_once_it_is_there(core):
    create = CreateTask(NAMESPACE, "late", NewTask("x", SPEC), "")
    update = UpdateTask(NAMESPACE, "late", name="changed")
    first, created, changed = core.batch(update, create, update)
    assert isinstance(first, NotFound)
    assert (created, changed) == ("late", None)
    assert core.task("late").name == "changed"
