"""Steps run in order until one fails; simple plugins get their parameters as variables."""

import json
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.host.simple import variables

SHOW = "#!/bin/sh\nenv | grep ^PLUGIN_ | sort\n"


def commands(*lines, name=""):
    return {"name": name, "commands": list(lines)}


def test_steps_run_in_order_and_the_first_failure_ends(host):
    plugin = host.plugin("second", "#!/bin/sh\necho two >> $PWD/order\nexit 7\n")
    ended = host.run(
        commands("echo one >> order", "echo $MINE"),
        {**plugin, "name": "next"},
        commands("echo three >> order"),
        env={"MINE": "the task's"},
    )
    assert ended.code == 7
    assert ended.out == "the task's\n"
    assert ended.err == "muster: step next: exit code 7\n"
    assert (host.workspace / "order").read_text() == "one\ntwo\n"


def test_a_lone_step_ends_as_its_program_does_and_nothing_is_added(host):
    ended = host.run(commands("false", "echo never"))
    assert (ended.code, ended.out, ended.err) == (1, "", "")


def test_a_signal_is_told_as_a_shell_does(host):
    ended = host.run(host.plugin("killed", "#!/bin/sh\nkill -KILL $$\n"))
    assert ended.code == 128 + signal.SIGKILL


def test_the_host_adds_no_variables_to_a_step(host):
    ended = host.run(commands("env"))
    names = {line.partition("=")[0] for line in ended.out.splitlines()}
    assert not {name for name in names if name.startswith(("GRPC", "PLUGIN_"))}


def test_parameters_are_variables(host):
    settings = {"name": "Ada", "a-list": ["x", 2], "on": True, "deep": {"a": [1]}, "no": None}
    ended = host.run({**host.plugin("show", SHOW), "settings": settings})
    assert ended.out.splitlines() == [
        "PLUGIN_A_LIST=x,2",
        'PLUGIN_DEEP={"a": [1]}',
        "PLUGIN_NAME=Ada",
        "PLUGIN_ON=true",
    ]


@given(
    st.dictionaries(
        st.text(min_size=1),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda each: st.lists(each) | st.dictionaries(st.text(), each),
            max_leaves=5,
        ),
    )
)
def test_every_parameter_has_a_variable_of_allowed_letters(parameters):
    found = variables(parameters)
    assert all(name.startswith("PLUGIN_") and name.isascii() for name in found)
    assert len(found) <= sum(value is not None for value in parameters.values())
    for name, value in parameters.items():
        if isinstance(value, dict):
            assert json.loads(variables({name: value}).popitem()[1]) == value


def test_a_parameter_may_be_a_variable_of_the_tasks(host):
    step = {**host.plugin("show", SHOW), "settings": {"token": {"from_env": "DEPLOY"}}}
    ended = host.run(step, env={"DEPLOY": "from the task"})
    assert ended.out == "PLUGIN_TOKEN=from the task\n"


def test_a_variable_that_is_not_there_is_named(host):
    ended = host.run({**host.plugin("show", SHOW), "settings": {"token": {"from_env": "DEPLOY"}}})
    assert ended.code == 1
    assert ended.err == (
        "muster: step show@1.0.0: token: there is no variable 'DEPLOY' to take it from\n"
    )


LIMITED = """
required = ["name"]
additionalProperties = false
properties.name = {type = "string", maxLength = 3}
properties.times = {type = "integer"}
"""


def test_all_that_is_wrong_with_parameters_is_told(host):
    step = host.plugin("show", SHOW, parameters=LIMITED)
    ended = host.run({**step, "settings": {"times": "two", "odd": 1}})
    assert ended.code == 1
    assert "times: 'two' is not of type 'integer'" in ended.err
    assert "with: 'name' is a required property" in ended.err
    assert "'odd' was unexpected" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("parameters", [LIMITED, 'not = {required = ["name"]}'])
def test_what_is_wrong_with_a_secret_does_not_show_it(host, parameters):
    step = host.plugin("show", SHOW, parameters=parameters)
    ended = host.run(
        {**step, "settings": {"name": {"from_env": "SECRET"}}}, env={"SECRET": "a\nb'c"}
    )
    assert ended.code == 1
    assert "is not what it takes" in ended.err
    assert "b'c" not in ended.err


@pytest.mark.parametrize("rule", ['"$ref" = "#/nowhere"', '"$ref" = "#"'])
def test_a_schema_that_cannot_be_used_is_a_failure_in_words(host, rule):
    step = host.plugin("show", SHOW, parameters=rule)
    ended = host.run({**step, "settings": {"a": "b"}})
    assert ended.code == 1
    assert "says what it takes in a way that cannot be used" in ended.err
    assert "Traceback" not in ended.err


def test_a_plugin_without_a_program_for_this_host_says_for_which_it_has(host):
    ended = host.run(host.plugin("other", SHOW, entry="plan9/mips"))
    assert ended.code == 1
    assert "other has programs for plan9/mips, and none for linux/" in ended.err


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"uses": "lost@1"}, "nobody said where the plugin lost@1 is"),
        ({"uses": "lost@1", "folder": "/nowhere"}, "plugin.toml cannot be read"),
    ],
)
def test_a_plugin_that_is_not_there_fails_its_step(host, step, words):
    ended = host.run(step)
    assert (ended.code, words in ended.err) == (1, True)


def test_a_program_that_cannot_start_is_told_as_a_shell_does(host):
    ended = host.run(host.plugin("odd", "neither a script nor a program"))
    assert ended.code == 126
    assert ended.err.startswith("muster: step odd@1.0.0: could not start: ")
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("first", ["#!/usr/bin/env python3", "#!/no/such/bin/python3.11"])
def test_a_script_of_python_runs_in_the_agents_own(host, first):
    program = f"{first}\nimport sys, plugins.sdk, helper\nprint(sys.executable)\n"
    step = host.plugin("snake", program)
    folder = host.folder / "plugin-snake"
    (folder / "helper.py").write_text("")
    ended = host.run(step)
    assert ended.out == f"{sys.executable}\n", ended.err
    assert not (folder / "__pycache__").exists()


def test_a_script_of_something_else_runs_in_its_own(host):
    ended = host.run(host.plugin("other", "#!/bin/sh\n# not python\necho $0\n"))
    assert ended.out.endswith("/main\n")


@pytest.mark.parametrize("kind", ["commands", "plugin"])
def test_a_stop_reaches_the_running_step_and_no_other_starts(host, kind):
    lines = ("trap 'echo stopped; exit 3' TERM", "echo up", "while :; do sleep 0.05; done")
    script = "\n".join(("#!/bin/sh", *lines))
    first = commands(*lines) if kind == "commands" else host.plugin("long", script)
    process = host.start(first, commands("echo never"))
    assert process.stdout.readline() == "up\n"
    process.terminate()
    ended = host.end()
    assert ended.out == "stopped\n"
    assert ended.code == 3


def test_the_host_runs_as_the_supervisor_starts_it(host):
    plan = host.folder / "plan.json"
    plan.write_text(json.dumps({"steps": [commands("echo there")]}))
    told = subprocess.check_output(  # noqa: S603 - the host under test
        [sys.executable, "-I", "-m", "plugins.host", plan], cwd=host.workspace, text=True
    )
    assert told == "there\n"
