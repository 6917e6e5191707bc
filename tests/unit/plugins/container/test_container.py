"""The plugin `container`: with a stand-in for the engine, and with podman where it is."""

import json
import os
import re
import signal
import sys
import uuid

import pytest

from plugins.container import engine, main
from tests.podman import busybox_image, command, names
from tests.unit.plugins.running import run, start

TEMPORARY = "tmp"

ENGINE = f"""#!{sys.executable}
import json, os, sys, signal, time
log = os.environ["ENGINE_LOG"]
with open(log, "a") as file:
    file.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
word = sys.argv[1]
if word == "ps":
    print(os.environ.get("ENGINE_PS", ""))
elif word == "inspect":
    print(os.environ["ENGINE_INSPECT"])
elif word == "run":
    if sys.argv[-2] == "-e":
        print(open(sys.argv[-1]).read(), end="", flush=True)
    if os.environ.get("ENGINE_HANGS"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("runs", flush=True)
        time.sleep(60)
    sys.exit(int(os.environ.get("ENGINE_EXIT", "0")))
"""


@pytest.fixture
def host(tmp_path):
    """An attempt's folder, and an engine on the PATH."""
    for name in ("bin", "spool/a/workspace", "spool/a/tmp"):
        (tmp_path / name).mkdir(parents=True)
    program = tmp_path / "bin" / "podman"
    program.write_text(ENGINE)
    program.chmod(0o755)
    return tmp_path


def env_of(host, **more):
    return {
        "PATH": f"{host}/bin:{os.defpath}",
        "HOME": f"{host}/spool/a/workspace",
        "TMPDIR": f"{host}/spool/a/tmp",
        "MUSTER_ATTEMPT": "task-1/2",
        "MUSTER_OUTPUT": f"{host}/spool/a/tmp/outputs",
        "ENGINE_LOG": f"{host}/log",
        **more,
    }


def calls(host):
    return [json.loads(line) for line in (host / "log").read_text().splitlines()]


def test_commands_run_in_the_image_with_the_tasks_folders_and_variables(host):
    settings = {
        "image": "alpine:3",
        "commands": ["echo a, b", "[ -d . ]"],
        "env": ["KEY", "DOCKER_HOST"],
    }
    work = host / "spool/a/workspace"
    code, out, err = run(
        "container",
        settings,
        work,
        env_of(host, KEY="hush", DOCKER_HOST="unix:///x", ENGINE_EXIT="3"),
    )
    assert (code, err) == (3, "")
    assert out == "echo a, b\n[ -d . ]\n"
    argv, env = calls(host)[-1]
    assert argv[0] == "run"
    assert re.fullmatch(r"--name=muster-task-1-2-\d+", argv[2])
    assert f"--volume={work}:{work}" in argv
    assert f"--volume={host}/spool/a/tmp:{host}/spool/a/tmp" in argv
    assert f"--env=HOME={work}" in argv
    assert "--env=KEY" in argv
    assert "--env=MUSTER_ATTEMPT" in argv
    assert "--env=DOCKER_HOST=unix:///x" in argv
    assert env["KEY"] == "hush"
    assert "DOCKER_HOST" not in env
    assert not any("hush" in word for word in argv)


def test_what_a_killed_process_left_is_removed_and_nothing_else(host):
    alive = engine.process_mark(os.getpid())
    env = env_of(host, ENGINE_PS="one\ntwo", ENGINE_INSPECT=f"one 1.2.boot\ntwo {alive}")
    assert run("container", {"image": "i"}, host / "spool/a/workspace", env)[0] == 0
    said = [argv for argv, _ in calls(host)]
    assert [argv[0] for argv in said] == ["ps", "inspect", "rm", "run"]
    assert said[2] == ["rm", "--force", "one"]


def test_sigterm_stops_and_removes_the_container(host):
    settings = {"image": "i", "stop_seconds": 1}
    with start(
        "container", settings, host / "spool/a/workspace", env_of(host, ENGINE_HANGS="1")
    ) as process:
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    stop, remove = [argv for argv, _ in calls(host)][-2:]
    assert stop[:3] == ["stop", "-t", "1"]
    assert remove == ["rm", "--force", stop[3]]


def test_no_engine_is_a_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run("container", {"image": "i"}, tmp_path, {"PATH": f"{tmp_path}/empty"})
    assert (code, err) == (1, "none of podman, docker, nerdctl can be used on this host\n")


def test_an_engine_that_does_not_answer_is_a_clear_error(host, monkeypatch, capfd):
    (host / "bin" / "podman").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(main, "PATIENCE", 0.2)
    with pytest.raises(SystemExit) as ended:
        main.remove_stale(f"{host}/bin/podman", "me", {"PATH": os.defpath})
    assert ended.value.code == 1
    assert "podman does not answer: `ps` took longer than" in capfd.readouterr().err


def test_an_engine_that_was_asked_for_and_is_missing_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    settings = {"image": "i", "engine": "docker"}
    code, _, err = run("container", settings, tmp_path, {"PATH": f"{tmp_path}/empty"})
    assert (code, err) == (1, "engine: docker is not on the PATH of the agent's host\n")


def test_a_removal_that_was_interrupted_is_done_again(host):
    (host / "bin" / "podman").write_text(
        f'#!/bin/sh\necho "$@" >> {host}/said\n[ -e {host}/once ] && exit 0\n'
        f"touch {host}/once\nkill -KILL $$\n"
    )
    main.remove(f"{host}/bin/podman", ["one"], {"PATH": os.defpath})
    assert (host / "said").read_text() == "rm --force one\n" * 2


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    with busybox_image(tmp_path_factory.mktemp("image")) as name:
        yield name


@pytest.fixture
def spool(tmp_path):
    for name in ("workspace", "tmp"):
        (tmp_path / "spool" / "a" / name).mkdir(parents=True)
    return tmp_path / "spool" / "a"


def real_env(spool, **more):
    mark = f"{uuid.uuid4()}/1"
    return {
        "TMPDIR": str(spool / TEMPORARY),
        "MUSTER_ATTEMPT": mark,
        "MUSTER_OUTPUT": str(spool / TEMPORARY / "outputs"),
        **more,
    }


def test_podman_runs_commands_in_an_image(image, spool):
    (spool / "workspace" / "given").write_text("from outside\n")
    settings = {
        "image": image,
        "network": False,
        "pull": "never",
        "env": ["KEY"],
        "commands": [
            "cat given",
            'echo "$KEY" > made',
            'echo words=2 >> "$MUSTER_OUTPUT"',
            "echo err >&2",
            "exit 7",
        ],
    }
    code, out, err = run("container", settings, spool / "workspace", real_env(spool, KEY="a\nb"))
    assert (code, out, err) == (7, "from outside\n", "err\n")
    assert (spool / "workspace" / "made").read_text() == "a\nb\n"
    assert (spool / "workspace" / "made").stat().st_uid == os.getuid()
    assert (spool / "tmp" / "outputs").read_text() == "words=2\n"


def test_podman_is_told_of_limits_and_that_there_is_no_network(image, spool):
    settings = {
        "image": image,
        "network": False,
        "pull": "never",
        "memory": "64m",
        "cpus": 0.5,
        "pids": 7,
        "stop_seconds": 0,
        "commands": ["echo runs", "sleep 60"],
    }
    env = real_env(spool)
    named = f"muster-{env['MUSTER_ATTEMPT'].replace('/', '-')}"
    with start("container", settings, spool / "workspace", env) as process:
        assert process.stdout.readline() == "runs\n"
        (name,) = [each for each in names() if each.startswith(named)]
        form = "{{.Memory}} {{.NanoCpus}} {{.PidsLimit}} {{.NetworkMode}}"
        form = f"--format={{{{with .HostConfig}}}}{form}{{{{end}}}}"
        told = command("podman", "inspect", form, name)
        process.terminate()
        process.communicate(timeout=30)
    assert told.stdout == f"{64 << 20} {500_000_000} 7 none\n", told.stderr


def test_podman_holds_to_a_limit_where_cgroups_can_be_made(image, spool):
    show = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2> /dev/null || true"
    settings = {"image": image, "network": False, "pull": "never", "pids": 7, "commands": [show]}
    code, out, err = run("container", settings, spool / "workspace", real_env(spool))
    assert (code, err) == (0, "")
    if out in ("", "max\n"):
        pytest.skip("containers have no cgroup of their own here, so limits have no effect")
    assert out == "7\n"


def test_podman_leaves_no_container_behind(image, spool):
    settings = {"image": image, "network": False, "pull": "never", "stop_seconds": 0}
    settings["commands"] = ["echo runs", "sleep 60"]
    env = real_env(spool)
    named = f"muster-{env['MUSTER_ATTEMPT'].replace('/', '-')}"
    for end in (signal.SIGTERM, signal.SIGKILL):
        with start("container", settings, spool / "workspace", env) as process:
            assert process.stdout.readline() == "runs\n"
            assert any(each.startswith(named) for each in names())
            process.send_signal(end)
            if end == signal.SIGTERM:
                process.communicate(timeout=30)
            else:
                process.wait(30)
                process.stdout.close()
                process.stderr.close()
        left = [each for each in names() if each.startswith(named)]
        assert len(left) == (end == signal.SIGKILL)
    settings["commands"] = ["echo next"]
    assert run("container", settings, spool / "workspace", env)[:2] == (0, "next\n")
    assert not [each for each in names() if each.startswith(named)]
