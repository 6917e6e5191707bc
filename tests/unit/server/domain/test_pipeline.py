import pytest

from server.domain.checks import Checks
from server.domain.group import Membership
from server.domain.labels import Operator, Requirement, Selector
from server.domain.pipeline import (
    JOB_LIMIT,
    Approval,
    Definition,
    Input,
    Job,
    Stage,
    Step,
    check_definition,
    order_of,
)
from server.domain.task import ArtifactSpec
from tests.fakes.core import job, parallel, serial


def problems(*stages, **fields):
    checks = Checks()
    check_definition(checks, Definition(stages, **fields))
    return [violation.field for violation in checks.violations]


def needs(*stages):
    return order_of(Definition(stages)).needs


# ---- who waits for whom


def test_jobs_of_a_serial_stage_follow_one_another():
    assert needs(serial("s", job("a"), job("b"), job("c"))) == {"a": [], "b": ["a"], "c": ["b"]}


def test_jobs_of_a_parallel_stage_start_together():
    assert needs(parallel("s", job("a"), job("b"))) == {"a": [], "b": []}


def test_a_stage_waits_for_the_last_jobs_of_the_stage_before():
    stages = serial("one", job("a"), job("b")), parallel("two", job("c"), job("d"))
    assert needs(*stages, serial("three", job("e"), job("f"))) == {
        "a": [],
        "b": ["a"],
        "c": ["b"],
        "d": ["b"],
        "e": ["c", "d"],
        "f": ["e"],
    }


def test_a_job_others_wait_for_is_not_among_the_last_of_its_stage():
    stage = parallel("one", job("a"), job("b", "a"), job("c"))
    assert needs(stage, serial("two", job("d")))["d"] == ["b", "c"]


def test_a_job_that_waits_inside_its_stage_need_not_wait_for_the_gate_again():
    stages = serial("one", job("a")), parallel("two", job("b"), job("c", "b"))
    assert needs(*stages) == {"a": [], "b": ["a"], "c": ["b"]}


def test_a_job_that_names_an_earlier_stages_job_waits_for_the_gate_too():
    stages = parallel("one", job("a"), job("b")), parallel("two", job("c", "a"))
    assert needs(*stages)["c"] == ["a", "b"]


def test_a_need_named_twice_counts_once():
    assert needs(serial("s", job("a"), job("b", "a", "a")))["b"] == ["a"]


def test_a_job_may_wait_for_one_listed_after_it_in_a_parallel_stage():
    assert needs(parallel("s", job("a", "b"), job("b"))) == {"a": ["b"], "b": []}


# ---- what is refused, by its path


def test_a_good_definition_has_no_problems():
    assert problems(serial("s", job("a"), job("b", "a")), env={"A": "1"}) == []


BAD_JOB = Job(
    "",
    (),
    env={"9": "x"},
    image="a\0",
    timeout=-1,
    retry=101,
    priority=10,
    selector=Selector.of({}, Requirement("x", None)),
)


@pytest.mark.parametrize(
    ("stages", "fields"),
    [
        ([], ["stages"]),
        ([Stage("s", ())], ["stages[0].jobs"]),
        ([serial("", job("a"))], ["stages[0].name"]),
        ([serial("s", job("a")), serial("s", job("b"))], ["stages[1].name"]),
        ([serial("s", job("a")), serial("t", job("a"))], ["stages[1].jobs[0].name"]),
        ([serial("s", job("a", "nobody"))], ["stages[0].jobs[0].depends_on[0]"]),
        (
            [serial("s", job("a"), job("b", "a", "c")), serial("t", job("c"))],
            ["stages[0].jobs[1].depends_on[1]"],
        ),
        ([parallel("s", job("a", "b"), job("b", "a"))], ["stages"]),
        ([parallel("s", job("a", "a"))], ["stages"]),
        ([serial("s", job("a", "b"), job("b"))], ["stages"]),
        (
            [serial("s", job("a"), BAD_JOB)],
            [
                "stages[0].jobs[1].name",
                "stages[0].jobs[1].commands",
                "stages[0].jobs[1].env[9]",
                "stages[0].jobs[1].image",
                "stages[0].jobs[1].timeout",
                "stages[0].jobs[1].retry",
                "stages[0].jobs[1].priority",
                "stages[0].jobs[1].label_selector.match_expressions[0].operator",
            ],
        ),
    ],
)
def test_each_bad_field_is_named_by_its_path(stages, fields):
    assert problems(*stages) == fields


def test_bad_environment_names_are_refused_for_all_jobs():
    assert problems(serial("s", job("a")), env={"MUSTER_X": ""}) == ["env[MUSTER_X]"]


def test_a_definition_has_a_limited_number_of_jobs():
    many = (job(f"j{n}") for n in range(JOB_LIMIT + 1))
    assert problems(parallel("s", *many)) == ["stages"]


def test_a_cycle_is_spelled_out():
    checks = Checks()
    stage = parallel("s", job("a", "c"), job("b", "a"), job("c", "b"))
    check_definition(checks, Definition((stage,)))
    text = checks.violations[0].description
    assert text.startswith("jobs wait for each other: ")
    names = text.removeprefix("jobs wait for each other: ").split(" → ")
    assert names[0] == names[-1]
    assert set(names) == {"a", "b", "c"}


def test_a_definition_comes_back_from_json():
    selector = Selector.of({"os": "linux"}, Requirement("cores", Operator.GT, ("4",)))
    rich = Job(
        "a",
        ("x", "y"),
        image="i",
        env={"A": "ü"},
        timeout=5,
        retry=2,
        priority=8,
        selector=selector,
        allow_failure=True,
        condition="failure()",
        after_failure=True,
        matrix={"os": "linux"},
        base="a",
        group=Membership("deploy", 2, cancels_older=True),
        outputs=("version",),
        approval=Approval(("operator",), 60, "Ship it?"),
        artifacts=(ArtifactSpec("wheel", "dist/*.whl"),),
        steps=(Step(commands=("make",)), Step("tell", uses="notify@1.0.0", settings={"to": [1]})),
    )
    definition = Definition(
        (parallel("p", rich, job("b", "a")), serial("s", job("c"))),
        env={"B": "2"},
        repo_url="https://example.com/r.git",
        branch="dev",
        inputs=(Input("level", "choice", "how loud", "low", options=("low", "high")),),
        triggers={"push": {"branches": ["main"]}},
        group=Membership("one"),
    )
    assert Definition.from_json(definition.to_json()) == definition


def test_a_definition_from_before_jobs_had_a_priority_is_understood():
    plain = Definition((serial("s", job("a")),))
    older = plain.to_json().replace(',"priority":null', "")
    assert "priority" not in older
    assert Definition.from_json(older) == plain
