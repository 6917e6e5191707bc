"""The command lines of container engines."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.container import engine

WANTED = engine.Wanted(
    image="alpine:3",
    name="muster-t-1-7",
    labels={"muster.owner": "me"},
    mounts=[Path("/a/workspace"), Path("/a/tmp")],
    folder=Path("/a/workspace/sub"),
    env=["KEY"],
    values=(("HOME", "/a/workspace"),),
    script="/a/tmp/x.sh",
)


@pytest.mark.parametrize("name", engine.ENGINES)
def test_every_engine_mounts_names_and_removes(name):
    argv = engine.run_argv(name, f"/usr/bin/{name}", WANTED)
    extra = [] if name == "nerdctl" else ["--security-opt=label=disable", "--log-driver=none"]
    assert argv == [
        *(f"/usr/bin/{name}", "run", "--rm", "--name=muster-t-1-7", "--pull=missing"),
        "--label=muster.owner=me",
        *("--volume=/a/workspace:/a/workspace", "--volume=/a/tmp:/a/tmp"),
        "--workdir=/a/workspace/sub",
        *("--env=KEY", "--env=HOME=/a/workspace"),
        *extra,
        *("--entrypoint=/bin/sh", "alpine:3", "-e", "/a/tmp/x.sh"),
    ]


def test_limits_and_no_network():
    wanted = engine.Wanted(
        image="i",
        name="n",
        labels={},
        mounts=[],
        folder=Path("/w"),
        network=False,
        user="1000:1000",
        memory="512m",
        cpus=1.5,
        pids=64,
        pull="never",
    )
    argv = engine.run_argv("podman", "podman", wanted)
    assert argv[-6:] == [
        *("--network=none", "--user=1000:1000"),
        *("--memory=512m", "--cpus=1.5", "--pids-limit=64", "i"),
    ]
    assert "--pull=never" in argv
    assert not any("entrypoint" in word for word in argv)


def test_what_would_steer_the_engine_is_kept_from_it():
    given = {
        "PATH": "/own",
        "DOCKER_HOST": "tcp://x",
        "KEY": "k",
        "PLUGIN_IMAGE": "i",
        "HOME": "/w",
    }
    env = engine.environment(given, ["PATH", "DOCKER_HOST", "KEY"])
    assert env["PATH"] == engine.GENERAL_PATH
    assert env.get("DOCKER_HOST") != "tcp://x"
    assert env["KEY"] == "k"
    assert env.get("HOME") != "/w"
    assert "PLUGIN_IMAGE" not in env


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "CONTAINERS_CONF", "DOCKER_HOST"])
def test_names_that_steer(name):
    assert engine.STEERING.fullmatch(name)


@pytest.mark.parametrize("name", ["MY_PATH", "DOCKER_PASSWORD", "DOCKER_AUTH_CONFIG", "TOKEN"])
def test_names_that_may_be_secrets_do_not_steer(name):
    assert not engine.STEERING.fullmatch(name)


def test_a_name_says_which_attempt_it_is_of():
    assert engine.name_of("01a2-b/3", 42) == "muster-01a2-b-3-42"


def test_a_process_is_told_from_those_that_are_gone():
    mark = engine.process_mark(os.getpid())
    assert engine.lives(mark)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = engine.process_mark(other.pid)
    assert engine.lives(gone)
    other.communicate()
    assert not engine.lives(gone)
    pid, _, rest = mark.partition(".")
    assert not engine.lives(f"{pid}.1{rest}")
    assert not engine.lives("")


def test_a_process_that_nobody_has_collected_yet_is_gone():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        mark = engine.process_mark(other.pid)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert not engine.lives(mark)


def test_a_program_without_its_service_is_passed_over(tmp_path):
    (tmp_path / "run").mkdir()
    assert engine.served("podman", {}, tmp_path)
    assert not engine.served("docker", {}, tmp_path)
    assert not engine.served("nerdctl", {}, tmp_path)
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "run" / "docker.sock"))
        assert engine.served("docker", {}, tmp_path)
    assert engine.served("docker", {"DOCKER_HOST": "unix:///own"}, tmp_path)
    (tmp_path / "containerd-rootless").mkdir()
    assert engine.served("nerdctl", {"XDG_RUNTIME_DIR": str(tmp_path)}, tmp_path)
