"""The plugin host and the kit: what a plugin does wrong ends its step with one clear line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugins.host.simple import variables
from plugins.sdk import Context, Result, harness, plugin
from plugins.sdk.definition import Plugin

EXAMPLES = Path(__file__).parents[3] / "examples" / "plugins"

MANIFEST = """
id = "odd"
version = "{version}"
type = "step"
protocol = "{protocol}"
minimum_agent = "0.0.0"
[entry_points]
"{platform}" = "main.py"
"""

DYING = """#!/usr/bin/env python3
import os, signal, sys

STEP = os.environ["STEP"]

def die(step):
    if step == STEP:
        os.kill(os.getpid(), signal.SIGKILL)

die("start")
from plugins.sdk import plugin, serve
from plugins.sdk import serving

for name in ("Describe", "Validate", "Execute"):
    def dying(self, request, context, own=getattr(serving._Service, name), name=name):
        die(name)
        return own(self, request, context)
    setattr(serving._Service, name, dying)

@plugin
def odd(context):
    context.log("begun")
    die("middle")

result = serving._result
def last(*given):
    found = result(*given)
    die("result")
    return found
serving._result = last

if STEP == "handshake":
    import grpc
    grpc.server = lambda *_: die("handshake")
serve(odd)
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a plugin of a program."""

    def make(program, *, protocol="grpc", platform="any", version="1.0.0"):
        folder = tmp_path / "odd"
        folder.mkdir(exist_ok=True)
        manifest = MANIFEST.format(protocol=protocol, platform=platform, version=version)
        (folder / "plugin.toml").write_text(manifest)
        (folder / "main.py").write_text(program)
        (folder / "main.py").chmod(0o755)
        return folder

    return make


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "step", ["start", "handshake", "Describe", "Validate", "Execute", "middle", "result"]
)
def test_a_plugin_that_is_killed_fails_its_step_and_says_so(make, workspace, step):
    ran = harness.run(make(DYING), {}, workspace, {"STEP": step})
    assert ran.exit_code == 1
    lines = ran.stderr.strip().splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("muster: step odd: ")
    assert "ended by signal 9" in lines[0]
    # What it printed last may have died with it.
    assert ran.stdout in (("", "begun\n") if step in ("middle", "result") else ("",))


SPEAKING = """#!/usr/bin/env python3
import sys, time
{}
"""


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        ("print('hello', flush=True); time.sleep(60)", "its first line is 'hello"),
        ("print('1|1|tcp|127.0.0.1:1|grpc', flush=True); time.sleep(60)", "this agent speaks"),
        ("print('1|7|unix|/x|grpc', flush=True); time.sleep(60)", "this agent speaks"),
        ("sys.stdout.write('x' * 10_000_000); time.sleep(60)", "its first line does not end"),
        ("sys.exit(3)", "it ended before it served: exit code 3"),
        ("print('1|1|unix|/nowhere|grpc', flush=True); time.sleep(60)", "does not answer within"),
    ],
)
def test_a_wrong_handshake_is_told(make, workspace, deed, why):
    began = time.monotonic()
    ran = harness.run(make(SPEAKING.format(deed)), {}, workspace)
    assert (ran.exit_code, why in ran.stderr) == (1, True), ran.stderr
    assert time.monotonic() - began < 30


KIT = """#!/usr/bin/env python3
import os, sys, time
from plugins.sdk import *

@plugin
def odd(context: Context, how: str = "") -> object:
    if how == "flood":
        for _ in range(200):
            context.log("x" * 100_000)
    if how == "error":
        raise PluginError("it cannot be done")
    if how == "bug":
        return 1 / 0
    if how == "code":
        return 7
    if how == "outputs":
        return {"a": "1", "b": "two\\nlines"}
    if how == "waits":
        context.log("waiting")
        context.wait(60)
    return Result(0, "fine")

serve(odd)
"""


@pytest.mark.parametrize(
    ("how", "code", "err"),
    [
        ("", 0, "fine\n"),
        ("code", 7, ""),
        ("error", 1, "it cannot be done\n"),
        ("flood", 0, "fine\n"),
    ],
)
def test_what_a_function_returns_or_raises_is_the_end(make, workspace, how, code, err):
    ran = harness.run(make(KIT), {"how": how}, workspace)
    assert (ran.exit_code, ran.stderr) == (code, err)
    assert len(ran.stdout) == (200 * 100_001 if how == "flood" else 0)


def test_a_bug_shows_where_it_is(make, workspace):
    ran = harness.run(make(KIT), {"how": "bug"}, workspace)
    assert ran.exit_code == 1
    assert "ZeroDivisionError: division by zero" in ran.stderr
    assert "1 / 0" in ran.stderr


def test_outputs_reach_later_jobs(make, workspace):
    ran = harness.run(make(KIT), {"how": "outputs"}, workspace)
    assert ran.outputs == "a=1\nb<<END\ntwo\nlines\nEND\n"


def test_a_package_of_another_version_is_refused(make, workspace):
    program = KIT.replace(
        "serve(odd)",
        "import plugins.sdk.serving as s\n"
        "s.tomllib.loads = lambda _: {'id': 'odd', 'version': '9.9.9'}\nserve(odd)",
    )
    ran = harness.run(make(program), {}, workspace)
    assert "it says that it is odd@9.9.9, and its package odd@1.0.0" in ran.stderr


def test_a_plugin_for_other_machines_is_told(make, workspace):
    ran = harness.run(make(KIT, platform="plan9/mips"), {}, workspace)
    assert "odd has programs for plan9/mips, and none for " in ran.stderr


def start(steps, workspace, **env):
    plan = workspace.parent / "plan.json"
    plan.write_text(json.dumps({"steps": steps}))
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "plugins.host", plan],
        cwd=workspace,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_plugin_hears_that_the_task_ends(make, workspace):
    step = {"name": "s", "uses": "odd", "settings": {"how": "waits"}, "folder": str(make(KIT))}
    process = start([step], workspace)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (143, "", "stopped\n")


def test_steps_are_done_in_order_until_one_fails(workspace):
    steps = [
        {"name": "one", "commands": ["echo one > file", "echo 1"], "uses": ""},
        {"name": "two", "uses": "greet", "settings": {"name": {"from_env": "WHO"}},
         "folder": str(EXAMPLES / "greet")},
        {"name": "three", "commands": ["cat file", "false", "echo never"], "uses": ""},
        {"name": "four", "commands": ["echo never"], "uses": ""},
    ]  # fmt: skip
    process = start(steps, workspace, WHO="Ada", MUSTER_OUTPUT=str(workspace.parent / "o"))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "1\nHello, Ada.\none\n")
    assert err == "muster: step three: exit code 1\n"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "with: 'name' is a required property"),
        ({"name": ""}, "name: '' should be non-empty"),
        ({"name": "a", "other": 1}, "Additional properties are not allowed"),
        ({"name": {"from_env": "NOBODY"}}, "name: there is no variable 'NOBODY'"),
    ],
)
def test_parameters_are_held_against_the_schema(workspace, settings, why):
    ran = harness.run(EXAMPLES / "greet", settings, workspace)
    assert (ran.exit_code, why in ran.stderr) == (1, True), ran.stderr


def test_parameters_become_variables():
    given = {"a": "x", "b-c": 1.5, "d": True, "e": ["1", 2], "f": {"g": 1}, "h": None}
    assert variables(given) == {
        "PLUGIN_A": "x",
        "PLUGIN_B_C": "1.5",
        "PLUGIN_D": "true",
        "PLUGIN_E": "1,2",
        "PLUGIN_F": '{"g": 1}',
    }


def test_a_plugin_started_by_hand_says_what_it_is():
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, EXAMPLES / "word-count" / "main.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, "an agent starts it" in done.stderr) == (1, True)


def test_a_function_tells_its_parameters():
    @plugin
    def one(context: Context, name: str, times: int = 1, tags: list[str] | None = None) -> None:
        """Do something."""

    assert isinstance(one, Plugin)
    assert one.parameters == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "times": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": False,
        "required": ["name"],
    }
    assert Result().exit_code == 0


@pytest.mark.parametrize("hint", [object, "set[str]", bytes])
def test_a_parameter_that_json_has_no_type_for_is_refused(hint):
    def one(context, name):
        """Do something."""

    one.__annotations__["name"] = hint
    with pytest.raises(TypeError, match="the parameter name is"):
        plugin(one)
