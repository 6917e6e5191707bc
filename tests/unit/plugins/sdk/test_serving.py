"""The kit serves a function, whatever its author did not think of."""

import os
import subprocess
import sys

import psutil
import pytest

from plugins.sdk import harness
from tests.unit.agent.kit import until
from tests.unit.plugins.host.conftest import Host, host  # noqa: F401 - a fixture

MAIN = """#!/usr/bin/env python3
import os, sys, time
from plugins.sdk import *

@plugin
def made(context: Context) -> object:
    {body}

if __name__ == "__main__":
    serve(made)
"""


def made(host: Host, body: str):  # noqa: F811
    return host.plugin("made", MAIN.format(body=body), "grpc", name="main.py")


@pytest.mark.parametrize(
    ("body", "code", "out", "err"),
    [
        ("print('printed'); context.log('logged', error=True)", 0, "printed\n", "logged\n"),
        ("return 5", 5, "", ""),
        ("raise PluginError('the key is too short')", 1, "", "the key is too short\n"),
        ("raise Cancelled", 143, "", "stopped\n"),
        ("raise KeyError('x')", 1, "", "KeyError: 'x'\n"),
        ("sys.exit(6)", 6, "", ""),
        ("sys.exit('no more')", 1, "", "no more\n"),
        ("return Result(2**40)", 1, "", "ValueError: "),
        ("return Result(outputs={'a': 1})", 1, "", "TypeError: "),
        ("return True", 1, "", "TypeError: made returned bool"),
        ("context.progress(0.5, 'half'); context.progress(-1, 'x')", 0, "50% half\n", ""),
        ("context.log('x' * 9_000_000)", 0, "x" * 9_000_000 + "\n", ""),
        ("context.log(context.env['MINE'] + str(context.workspace == os.getcwd()))", 0, "m", ""),
    ],
)
def test_every_way_to_end_is_a_result(host, body, code, out, err):  # noqa: F811
    ended = host.run(made(host, body), env={"MINE": "m"})
    assert ended.code == code, ended.err
    assert ended.out.startswith(out)
    assert err in ended.err
    if not out:
        assert ended.out == ""


def test_a_stop_ends_what_waits(host):  # noqa: F811
    process = host.start(made(host, "context.log('up'); context.wait(60)"))
    assert process.stdout.readline() == "up\n"
    process.terminate()
    ended = host.end()
    assert (ended.code, ended.err) == (143, "stopped\n")


async def test_it_goes_when_its_host_is_dead(host):  # noqa: F811
    body = "context.log(str(os.getpid()))\n    while not context.cancelled: time.sleep(0.05)"
    process = host.start(made(host, body))
    pid = int(process.stdout.readline())
    process.kill()
    await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_without_an_agent_it_says_what_it_is(host):  # noqa: F811
    step = made(host, "pass")
    ended = subprocess.run(  # noqa: S603 - the plugin under test
        [sys.executable, f"{step['folder']}/main.py"],
        env={k: v for k, v in os.environ.items() if k != "MUSTER_PLUGIN"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "an agent starts it" in ended.stderr


def test_the_harness_runs_a_plugin_as_an_agent_would(host, tmp_path):  # noqa: F811
    from pathlib import Path

    folder = Path(made(host, "return {'seen': context.env['GIVEN']}")["folder"])
    ran = harness.run(folder, {}, tmp_path, {"GIVEN": "yes"})
    assert (ran.exit_code, ran.stdout, ran.stderr, ran.outputs) == (0, "", "", "seen=yes\n")
    refused = harness.run(folder, {"x": 1}, tmp_path)
    assert refused.exit_code == 1
