"""Pipeline files: what they say, and how they are refused."""

import json
import time
from itertools import product

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.definition.expanding import read_definition
from server.definition.problem import Refused
from server.definition.schema import pipeline_schema
from server.domain.group import Membership
from server.domain.labels import Operator
from server.domain.pipeline import Approval, Definition, Input, order_of
from server.domain.task import ArtifactSpec

WHOLE = """
name: demo
description: everything there is
repo_url: https://example.com/r.git
branch: trunk
on:
  push: {branches: [main, "rel/**"], paths: "src/**", if: "event.author != 'bot'"}
  pull_request:
  cron:
    - "0 3 * * *"
    - {schedule: "@daily", zone: Europe/Berlin, inputs: {level: high}}
  pipeline: other
inputs:
  level: {type: choice, options: [low, high], default: low}
  count: {type: integer, required: true}
env: {GREETING: hello, NUMBER: 1}
defaults: {timeout: 10m, labels: {os: linux}, retry: 1}
concurrency: {group: demo, cancel_running: true}
stages:
  - name: build
    jobs:
      - name: compile
        commands:
          - make
          - echo "version=1" >> "$MUSTER_OUTPUT"
        outputs: version
        selector: cpus>2, !spot
        artifacts: {files: [dist/*.whl], keep: 2d}
        secrets: [TOKEN]
  - name: test
    parallel: true
    if: branch != 'docs'
    jobs:
      - name: unit
        matrix:
          py: ["3.11", "3.12"]
          os: [linux, mac]
          exclude: {py: "3.12", os: mac}
          include: {py: "3.13", os: linux}
        needs: compile
        image: python:${{ matrix.py }}
        env: {V: "${{ needs.compile.outputs.version }}"}
        commands: pytest
        if: inputs.level == 'low'
        allow_failure: true
        concurrency: {group: lab, limit: 2}
      - name: ship?
        approval: {who: [olga, operator], timeout: 1h, message: Go?}
        needs: unit
      - name: tell
        if: failure()
        commands: ./tell
"""


def test_a_whole_file_is_understood():
    file, definition = read_definition(WHOLE)
    assert file.description == "everything there is"
    assert definition.branch == "trunk"
    assert definition.group == Membership("demo", cancels_older=True)
    assert definition.env == {"GREETING": "hello", "NUMBER": "1"}
    assert definition.inputs[0] == Input("level", "choice", default="low", options=("low", "high"))
    assert definition.triggers["push"]["paths"] == ["src/**"]
    assert definition.triggers["cron"][1]["zone"] == "Europe/Berlin"
    assert definition.triggers["pipeline"] == [{"name": "other", "statuses": ["success"]}]
    jobs = {job.name: job for _, _, job in definition.jobs()}
    build = jobs["compile"]
    assert (build.timeout, build.retry, build.outputs) == (600, 1, ("version",))
    assert build.selector.match_labels == (("os", "linux"),)
    assert [each.operator for each in build.selector.expressions] == [
        Operator.GT,
        Operator.NOT_EXISTS,
    ]
    assert build.artifacts == (ArtifactSpec("compile", "dist/*.whl", expire=True, expire_days=2),)
    assert build.secret_refs == {"TOKEN": "TOKEN"}
    cells = [name for name in jobs if name.startswith("unit")]
    assert cells == [
        "unit (3.11, linux)",
        "unit (3.11, mac)",
        "unit (3.12, linux)",
        "unit (3.13, linux)",
    ]
    cell = jobs["unit (3.11, mac)"]
    assert cell.image == "python:3.11"
    assert (cell.env["MATRIX_OS"], cell.base, cell.allow_failure) == ("mac", "unit", True)
    assert cell.condition == "(branch != 'docs') && (inputs.level == 'low')"
    assert not cell.after_failure
    assert cell.group == Membership("lab", 2)
    assert jobs["ship?"].approval == Approval(("olga", "operator"), 3600, "Go?")
    assert jobs["ship?"].depends_on == tuple(cells)
    assert jobs["tell"].after_failure
    assert Definition.from_json(definition.to_json()) == definition


def test_cells_of_a_matrix_run_side_by_side_in_a_serial_stage():
    _, definition = read_definition(
        """
        name: n
        stages:
          - name: s
            jobs:
              - {name: a, commands: x}
              - {name: m, commands: x, matrix: {k: [1, 2]}}
              - {name: z, commands: x}
        """
    )
    assert order_of(definition).needs == {
        "a": [],
        "m (1)": ["a"],
        "m (2)": ["a"],
        "z": ["m (1)", "m (2)"],
    }


JOB = "name: n\nstages:\n  - name: s\n    jobs:\n      - {name: a, commands: x}\n"


def problems(text):
    with pytest.raises(Refused) as refused:
        read_definition(text)
    return refused.value.describe("f")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "f:1:1: the file is empty; it needs a name and stages"),
        ("name: n", "f:1:1: stages: is missing"),
        ("- a", "f:1:1: must be a mapping with name, description, repo_url or branch, not a list"),
        (JOB.replace("commands", "comands"), "is not known here; did you mean 'commands'?"),
        (
            JOB + "      - {name: a, commands: x}\n",
            "f:6:16: stages[0].jobs[1].name: a job on line 5",
        ),
        (JOB + "  - {name: s, jobs: [{name: b, commands: x}]}", "a stage on line 3 is called 's'"),
        (
            JOB + "      - {name: b, commands: x, needs: [c]}",
            "f:6:40: stages[0].jobs[1].needs[0]: ",
        ),
        (JOB + "      - {name: b, commands: x, needs: b}", "a job cannot wait for itself"),
        (JOB + "      - {name: b}", "a job has `commands`, `steps` or `approval`"),
        (
            JOB + "      - {name: b, commands: x, approval: me}",
            "a job has commands or approval, not",
        ),
        (JOB + "      - {name: b, commands: x, timeout: soon}", "must be a time such as 90s, 10m"),
        (JOB + "      - {name: b, commands: x, selector: 'cpus >'}", "a whole number belongs here"),
        (
            JOB + "      - {name: b, commands: x, if: brnch == 'x'}",
            "f:6:36: stages[0].jobs[1].if: ",
        ),
        (JOB + "      - {name: b, commands: x, env: {1A: x}}", "must be a name of letters"),
        (JOB + "      - {name: b, commands: x, env: {MUSTER_X: x}}", "are reserved"),
        (
            JOB + "      - {name: b, commands: ' '}",
            "stages[0].jobs[1].commands[0]: must not be empty",
        ),
        (JOB + "      - {name: b, commands: x, labels: {'a b': x}}", "stages[0].jobs[1].labels"),
        (JOB + "inputs: {a: {type: choice}}", "inputs[a].type: needs `options`"),
        (JOB + "inputs: {a: {type: integer, default: x}}", "must be of type integer"),
        (JOB + "on: {pipeline: n}", "a pipeline cannot start itself when it ends"),
        (JOB + "on: {cron: {schedule: '@daily', inputs: {x: 1}}}", "the pipeline has no input 'x'"),
        (JOB + "on: {push: {if: 'event.x == 1'}}", "event has no 'x'"),
        ("a: &a [*a]", "the alias *a is inside what it stands for"),
        ("a: *b", "there is no anchor &b before this alias"),
        ("a: {b: 1, b: 2}", "the key 'b' is on line 1 already"),
        ("a: [", "not YAML"),
        ("a: !!python/object:os.system x", "the tag"),
        ("a: " + "[" * 40 + "]" * 40, "nested deeper than 32 levels"),
        ("name: a\n---\nname: b", "a second document begins here"),
        ("name: \x07", "this character cannot be in a YAML file"),
    ],
)
def test_a_problem_has_its_line_column_and_path(text, problem):
    assert any(problem in line for line in problems(text)), problems(text)


def test_jobs_that_wait_for_each_other_are_named():
    text = JOB + "      - {name: b, commands: x, needs: c}\n      - {name: c, commands: x}\n"
    (line,) = problems(text)
    assert line.startswith("f:")
    assert "jobs wait for each other: " in line


def test_every_problem_is_told_at_once():
    text = JOB.replace("commands: x", "comands: x, retry: -1, timeout: x") + "onn: 1\n"
    assert len(problems(text)) == 4


def test_a_matrix_that_explodes_is_refused_at_its_place():
    axes = ", ".join(f"a{n}: [1, 2, 3]" for n in range(6))
    text = JOB + f"      - {{name: b, commands: x, matrix: {{{axes}}}}}"
    (line,) = problems(text)
    assert line == "f:6:32: stages[0].jobs[1].matrix: has 729 cells; at most 256 are allowed"
    wide = ", ".join(f"a{n}: [{', '.join(map(str, range(256)))}]" for n in range(40))
    began = time.monotonic()
    assert (
        "at most 256" in problems(JOB + f"      - {{name: b, commands: x, matrix: {{{wide}}}}}")[0]
    )
    assert time.monotonic() - began < 5


MANY = ", ".join(map(str, range(256)))


def job(name, rest="commands: x"):
    return f"      - {{name: {name}, {rest}}}\n"


def test_cells_that_wait_for_cells_are_counted_before_they_are_made():
    text = JOB.replace("jobs:", "parallel: true\n    jobs:")
    for n in range(8):
        needs = ", ".join(f"j{m}" for m in range(n))
        text += job(f"j{n}", f"commands: x, needs: [{needs}], matrix: {{a: [{MANY}]}}")
    (line,) = problems(text)
    assert line.startswith("f:10:9: stages[0].jobs[4]: with it, jobs would wait for others more")


def test_cells_one_after_another_are_counted_too():
    text = JOB + "".join(job(f"j{n}", f"commands: x, matrix: {{a: [{MANY}]}}") for n in range(8))
    (line,) = problems(text)
    assert "more than 250000 times" in line


def test_a_file_with_more_jobs_than_there_may_be_is_refused_before_they_are_made():
    text = JOB.replace("jobs:", "parallel: true\n    jobs:")
    text += "".join(job(f"j{n}", f"commands: x, matrix: {{a: [{MANY}]}}") for n in range(40))
    (line,) = problems(text)
    assert "stages[0].jobs[40]: is more than the 10000 jobs that a file may have" in line


def test_what_a_matrix_is_held_against_is_counted():
    out = ", ".join(f"{{a: 1, b: x{n}}}" for n in range(256))
    values = MANY[: MANY.index(", 160")]
    matrix = f"matrix: {{a: [{values}], b: [{values}], exclude: [{out}]}}"
    (line,) = problems(JOB + job("b", f"commands: x, {matrix}"))
    assert "has 25600 combinations, and too many of `include` and `exclude`" in line


def test_a_value_of_all_jobs_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(
        "server.definition.reading.find_template_faults", lambda text, _: read.append(text) or []
    )
    text = JOB + "".join(job(f"j{n}") for n in range(50)) + "env: {A: '${{ branch }}', B: plain}\n"
    read_definition(text)
    assert read == ["${{ branch }}"]


def test_a_fault_in_a_value_of_all_jobs_is_told_once():
    text = JOB + job("b") + "env: {A: '${{ brnch }}'}\ndefaults: {selector: 'cpus >'}\n"
    assert len(problems(text)) == 2


def test_expressions_are_counted():
    jobs = "".join(job(f"j{n}", f"commands: x, if: branch == '{n}'") for n in range(100))
    inputs = ", ".join(f"i{n}: {{}}" for n in range(2500))
    assert problems(JOB + jobs + f"inputs: {{{inputs}}}\n") == [
        "f:86:38: stages[0].jobs[81].if: a file has at most 4096 expressions"
    ]


def test_a_job_asks_for_so_many_labels_at_most():
    labels = ", ".join(f"l{n}: x" for n in range(65))
    (line,) = problems(JOB + f"defaults: {{labels: {{{labels}}}}}")
    assert "defaults.labels: must have at most 64, has 65" in line


def test_a_file_full_of_wrong_names_is_refused_in_time():
    jobs = "".join(job(f"job-{n}", f"commands: x, needs: [jb-{n}]") for n in range(3000))
    began = time.monotonic()
    told = problems(JOB + jobs)
    assert time.monotonic() - began < 20
    assert "did you mean 'job-0'?" in told[0]
    assert told[-1] == "f: and 2900 more"


def test_bombs_are_refused_before_they_are_built():
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    began = time.monotonic()
    assert "more than 100000 values" in problems("\n".join(layers))[0]
    assert problems(b"name: " + b"x" * (10 << 20)) == ["f:1:1: the file is larger than 1 MiB"]
    assert "aliases" in problems("a: &a x\nb: [" + "*a, " * 1001 + "]")[0]
    assert time.monotonic() - began < 5


def test_bytes_that_are_no_text_are_refused():
    assert problems(b"name: \xff")[0] == "f:1:7: this byte is not UTF-8 text"


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_mutation_of_a_good_file_trips_the_reader(data):
    text = list(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 12))] = data.draw(
            st.sampled_from(
                ["", "x", ":", "- ", "[", "}", "\n", "'", "&a ", "*a", "${{", "1e9", "~"]
            )
        )
        if not text:
            break
    try:
        _, definition = read_definition("".join(text))
    except Refused:
        pass
    else:
        assert Definition.from_json(definition.to_json()) == definition


words = st.text("abcxyz", min_size=1, max_size=6)
texts = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=12)
plain = texts.filter(lambda text: "${{" not in text)


@st.composite
def files(draw):
    """Return the data of a file that is right."""
    names = draw(st.lists(words, min_size=1, max_size=8, unique=True))
    stages = []
    before = []
    while names:
        jobs = []
        for name in [names.pop() for _ in range(draw(st.integers(1, len(names))))]:
            rest = {
                "needs": st.lists(st.sampled_from(before or [""]), unique=True, max_size=3),
                "env": st.dictionaries(words, plain, max_size=3),
                "matrix": st.dictionaries(
                    words, st.lists(plain, min_size=1, max_size=3, unique=True), min_size=1
                ).filter(lambda axes: len(axes) < 4),
                "if": st.sampled_from(["always()", "branch == 'x'", "event.kind != 'push'"]),
                "retry": st.integers(0, 100),
                "timeout": st.sampled_from(["90", "10m", "1h30m"]),
                "allow_failure": st.booleans(),
                "outputs": st.lists(words, max_size=3, unique=True),
            }
            kept = draw(st.sets(st.sampled_from(sorted(rest if before else set(rest) - {"needs"}))))
            jobs.append(
                {"name": name, "commands": [draw(plain)], **{key: draw(rest[key]) for key in kept}}
            )
            before.append(name)
        stages.append({"name": f"s{len(stages)}", "parallel": draw(st.booleans()), "jobs": jobs})
    return {"name": draw(words), "stages": stages}


@given(files())
@settings(max_examples=50, deadline=None)
def test_what_is_right_is_read_as_it_is_written(data):
    _, definition = read_definition(json.dumps(data, ensure_ascii=False))
    jsonschema.validate(data, pipeline_schema())
    assert Definition.from_json(definition.to_json()) == definition
    assert [stage.name for stage in definition.stages] == [each["name"] for each in data["stages"]]
    written = {job["name"]: job for stage in data["stages"] for job in stage["jobs"]}
    made = {}
    for _, _, each in definition.jobs():
        made.setdefault(each.base or each.name, []).append(each)
    assert list(made) == list(written)
    for name, cells in made.items():
        asked = written[name]
        axes = asked.get("matrix", {})
        assert [tuple(each.matrix.values()) for each in cells] == list(product(*axes.values()))
        for each in cells:
            assert each.commands == tuple(asked["commands"])
            assert asked.get("env", {}).items() <= each.env.items()
            waits = [job.name for need in asked.get("needs", ()) for job in made[need]]
            assert list(each.depends_on) == waits
            assert (each.retry, each.condition) == (asked.get("retry", 0), asked.get("if", ""))
