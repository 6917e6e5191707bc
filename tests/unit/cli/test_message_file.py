import json

import pytest

from cli.failure import CommandFailed, Refusal
from cli.message_file import read_message
from generated.pipeline.v1.pipeline_pb2 import CreatePipelineRequest
from generated.task.v1 import task_pb2

GOOD = """\
name: nightly
trigger_type: SCHEDULE
env: {DEPTH: full}
stages:
  - name: checks
    parallel: true
    jobs:
      - name: lint
        commands: [make lint]
        timeout: 60
        label_selector:
          match_expressions:
            - {key: cpus, operator: gt, values: ["3"]}
"""


def written(folder, text, name="pipeline.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def complaint(folder, text):
    """Return what is said about a file, without its folder."""
    with pytest.raises(CommandFailed) as error:
        read_message(written(folder, text), CreatePipelineRequest)
    return str(error.value).replace(f"{folder}/", "")


def test_yaml_becomes_the_request(tmp_path):
    request = read_message(written(tmp_path, GOOD), CreatePipelineRequest).message
    job = request.stages[0].jobs[0]
    assert (request.name, dict(request.env), job.timeout) == ("nightly", {"DEPTH": "full"}, 60)
    operator = job.label_selector.match_expressions[0].operator
    assert operator == task_pb2.LABEL_OPERATOR_GT


@pytest.mark.parametrize("key", ["trigger_type", "triggerType"])
@pytest.mark.parametrize("kind", ["TRIGGER_TYPE_API", "api"])
def test_json_becomes_the_request_in_either_spelling(tmp_path, key, kind):
    path = written(tmp_path, json.dumps({"name": "n", key: kind}, indent="\t"))
    request = read_message(path, CreatePipelineRequest).message
    assert request.trigger_type == 4


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("timeout:", "time_out:", "pipeline.yaml:10: stages[0].jobs[0].time_out: is not a field"),
        ("60", "'60'", "pipeline.yaml:10: stages[0].jobs[0].timeout: must be a whole number"),
        ("full", "1", "pipeline.yaml:3: env[DEPTH]: must be text, not the number 1 (put it in qu"),
        ("SCHEDULE", "WEEKLY", "pipeline.yaml:2: trigger_type: must be one of MANUAL, WEBHOOK"),
        ("[make lint]", "make lint", "pipeline.yaml:9: stages[0].jobs[0].commands: must be a list"),
        ("parallel: true", "parallel: 1", "pipeline.yaml:6: stages[0].parallel: must be true or"),
        (
            "60",
            "99999999999",
            "pipeline.yaml:10: stages[0].jobs[0].timeout: must be a whole number",
        ),
        ("name: nightly", "name: [", "pipeline.yaml:3: "),
    ],
)
def test_an_error_names_the_file_the_line_and_the_field(tmp_path, wrong, right, said):
    assert complaint(tmp_path, GOOD.replace(wrong, right, 1)).startswith(said)


def test_all_errors_are_told_at_once(tmp_path):
    text = GOOD.replace("60", "x").replace("full", "1")
    assert len(complaint(tmp_path, text).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping of fields, not nothing"),
        ("- a", "must be a mapping of fields, not a list"),
        ('{"name": "a",\n}', "pipeline.yaml:2: "),
        ("name: a\nname: b", "duplicate key"),
        ("x" * (1 << 20) + "x", "larger than 1 MiB"),
    ],
)
def test_what_is_no_message_is_refused(tmp_path, text, said):
    assert said in complaint(tmp_path, text)


def test_aliases_cannot_grow_without_bounds(tmp_path):
    rows = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    rows += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "is not a field" in complaint(tmp_path, "\n".join(rows))
    jobs = ",".join(["*j"] * 2000)
    stages = ",".join(["*s"] * 2000)
    bomb = f"name: x\nstages:\n- &s {{jobs: [&j {{name: a}}, {jobs}]}}\n- {stages}\n"
    bomb = bomb.replace(f"- {stages}", "\n".join(["- *s"] * 2000))
    assert "more than 100000 values" in complaint(tmp_path, bomb)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CommandFailed, match="not UTF-8"):
        read_message(path, CreatePipelineRequest)


def test_a_refused_field_is_placed_in_the_file(tmp_path):
    source = read_message(written(tmp_path, GOOD), CreatePipelineRequest)
    refused = Refusal("bad", 1, [("stages[0].jobs[0].depends_on[0]", "no such job"), ("x", "y")])
    lines = str(source.place(refused)).replace(f"{tmp_path}/", "").splitlines()
    assert lines == [
        "bad",
        "  pipeline.yaml:8: stages[0].jobs[0].depends_on[0]: no such job",
        "  pipeline.yaml: x: y",
    ]


@pytest.mark.parametrize("text", ['{"name": ' + "[" * 100_000, "name: " + "[" * 1_500])
def test_a_file_that_is_nested_too_deeply_is_told_in_one_line(tmp_path, text):
    assert complaint(tmp_path, text) == "pipeline.yaml: nested too deeply"
