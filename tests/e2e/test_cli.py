"""The command line against a real server and a real agent."""

import json
import re
import signal
import sys

import pytest

from tests.e2e.kit import eventually
from tests.e2e.processes import ROOT

COLOUR = "\x1b["
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOBODY = "01928f6e-0000-7000-8000-000000000000"
NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server("--kill-grace", "1")


@pytest.fixture(scope="module", autouse=True)
def _agent(shared, server):
    """Everything here runs on one agent."""
    shared.start_agent(server, "--name", "worker", labels={"role": "test"}, slots=4)


@pytest.fixture
def muster(shared, server):
    def muster(*words, **options):
        return shared.cli(*words, server=options.pop("server", server), **options)

    return muster


@pytest.fixture
def data(muster):
    """Return what a command prints with -o json."""

    def data(*words, **options):
        done = muster(*words, "-o", "json", **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return data


@pytest.fixture
def create(muster):
    """Submit a task and return its id."""

    def create(*words):
        done = muster("task", "create", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert UUID.fullmatch(done.stdout.strip())
        return done.stdout.strip()

    return create


@pytest.fixture
def ended(data):
    """Return a task once it has ended."""

    def ended(task_id):
        def end():
            task = data("task", "get", task_id)
            return task if task["finished_at"] != "0" else None

        return eventually(end, within=20, every=0.1)

    return ended


# ---- exec


def test_exec_passes_on_output_and_exit_code(muster):
    done = muster("exec", "--", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    done = muster("exec", "--label", "role=test", "--env", "A=b c", "--", "sh", "-c", 'echo "$A"')
    assert (done.returncode, done.stdout, done.stderr) == (0, "b c\n", "")


def test_exec_keeps_bytes_and_many_lines_as_they_are(muster):
    done = muster("exec", "--", "seq 1 3000")
    assert (done.returncode, done.stdout.split()) == (0, [str(n) for n in range(1, 3001)])


def test_exec_tells_a_timeout_and_its_own_failures_apart(muster):
    done = muster("exec", "--timeout", "1", "--", "exec sleep 100")
    assert (done.returncode, "ran out of its 1 s" in done.stderr) == (124, True)
    done = muster("exec", "--", "true", server=NOWHERE)
    assert (done.returncode, "cannot reach 127.0.0.1:1" in done.stderr) == (125, True)
    done = muster("exec", "--label", "not a label", "--", "true")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_cancels_the_task(shared, server, data, mark, number, code):
    words = ["exec", "--env", f"STORY={mark.value}", "--", "echo up; exec sleep 100"]
    program = shared.start_cli(*words, server=server)
    eventually(lambda: "up" in program.said(), within=20)
    assert not mark.gone()
    program.signal(number)
    assert program.wait() == code
    assert "cancelling the task" in program.complained()
    assert "Traceback" not in program.complained()
    assert mark.gone()
    [task] = data("task", "list", "--limit", "1")
    assert task["status"] == "TASK_STATUS_CANCELLED"


def test_exec_says_why_it_waits(shared, server, data):
    program = shared.start_cli("exec", "--label", "role=nobody", "--", "true", server=server)
    eventually(lambda: "does not fit role=nobody" in program.complained(), within=20)
    program.signal(signal.SIGINT)
    assert program.wait() == 130


# ---- tasks


def test_a_task_is_created_listed_shown_and_read(muster, data, create, ended):
    task_id = create("--name", "by hand", "-c", "echo one", "-c", "echo two >&2")
    task = ended(task_id)
    assert (task["name"], task["status"]) == ("by hand", "TASK_STATUS_SUCCESS")
    assert task["commands"] == ["echo one", "echo two >&2"]
    followed = muster("task", "logs", "-f", task_id)
    assert (followed.stdout, followed.stderr) == ("one\n", "two\n")
    assert muster("task", "logs", "--from-line", "3", task_id).stdout == ""
    assert task_id in muster("task", "list", "--status", "success").stdout
    assert task_id not in muster("task", "list", "--status", "failed").stdout
    shown = muster("task", "get", task_id).stdout
    assert "by hand" in shown
    assert "SUCCESS" in shown
    assert task_id in {task["task_id"] for task in data("task", "list", "--limit", "1000")}


def test_a_task_is_changed_cancelled_retried_and_deleted(muster, data, create, ended):
    task_id = create("--label", "role=nobody", "--", "true")
    assert muster("task", "update", task_id, "--name", "renamed", "--timeout", "9").returncode == 0
    task = data("task", "get", task_id)
    assert (task["name"], task["timeout"]) == ("renamed", 9)
    assert "role=nobody" in task["waiting_reason"]
    done = muster("task", "retry", task_id)
    assert (done.returncode, "has not ended" in done.stderr) == (1, True)
    assert muster("task", "cancel", task_id, "--reason", "enough").returncode == 0
    assert ended(task_id)["error_message"] == "enough"
    again = muster("task", "retry", task_id).stdout.strip()
    assert data("task", "get", again)["retry_of"] == task_id
    for each in (again, task_id):
        assert muster("task", "delete", each).returncode == 0
        assert muster("task", "get", each).returncode == 4


def test_a_task_comes_from_a_file(muster, data, create, ended, tmp_path):
    file = tmp_path / "task.yaml"
    file.write_text("name: from a file\ncommands: [echo $A]\nenv: {A: filed}\n")
    task_id = create("-f", str(file))
    assert ended(task_id)["name"] == "from a file"
    assert muster("task", "logs", task_id).stdout == "filed\n"
    file.write_text("comands: [typo]\n")
    done = muster("task", "create", "-f", str(file))
    assert (done.returncode, "comands" in done.stderr) == (1, True)


# ---- pipelines and runs

PIPELINE = """
name: {name}
stages:
  - name: build
    parallel: true
    jobs:
      - {{name: lint, commands: [echo linted]}}
      - {{name: compile, commands: [echo compiled]}}
  - name: test
    jobs:
      - {{name: unit, commands: ["echo tested $WHAT", "exit $CODE"], env: {{CODE: "0"}}}}
"""


def test_a_pipeline_is_defined_run_followed_and_stopped(muster, data, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.format(name="by-hand"))
    assert muster("pipeline", "create", "-f", str(file)).returncode == 0
    assert muster("pipeline", "create", "-f", str(file)).returncode == 1
    done = muster("pipeline", "trigger", "by-hand", "--follow", "--env", "WHAT=all")
    assert done.returncode == 0, done.stderr
    for job, line in (("lint", "linted"), ("compile", "compiled"), ("unit", "tested all")):
        assert re.search(rf"^{job} .*{line}$", done.stdout, re.MULTILINE), done.stdout
    assert "SUCCESS" in done.stderr
    done = muster("pipeline", "trigger", "by-hand", "--follow", "--env", "CODE=3")
    assert (done.returncode, "FAILED" in done.stderr) == (1, True)
    runs = data("run", "list", "--pipeline", "by-hand")
    assert [run["status"] for run in runs] == ["PIPELINE_STATUS_FAILED", "PIPELINE_STATUS_SUCCESS"]
    run = data("run", "get", runs[1]["run_id"])
    assert [job["name"] for job in run["jobs"]] == ["lint", "compile", "unit"]
    assert muster("run", "watch", runs[0]["run_id"]).returncode == 1
    assert "lint" in muster("run", "logs", runs[1]["run_id"]).stdout
    assert "unit" in muster("pipeline", "get", "by-hand").stdout
    assert "by-hand" in muster("pipeline", "list").stdout
    assert "0 active runs" in muster("pipeline", "stop", "by-hand").stdout


# ---- agents


def test_agents_are_listed_shown_and_labelled(muster, data):
    [agent] = data("agent", "list", "--label", "role=test")
    assert (agent["agent_id"], agent["max_concurrent_jobs"]) == ("worker", 4)
    assert data("agent", "list", "--label", "role=nobody") == []
    assert "worker" in muster("agent", "list").stdout
    assert "role=test" in muster("agent", "get", "worker").stdout
    assert muster("agent", "labels", "worker", "disk=ssd").returncode == 0
    assert data("agent", "get", "worker")["labels"]["disk"] == "ssd"


# ---- exit codes and output


@pytest.mark.parametrize(
    "words",
    [
        ["task", "get", NOBODY],
        ["task", "logs", NOBODY],
        ["task", "logs", "-f", NOBODY],
        ["task", "cancel", NOBODY],
        ["task", "retry", NOBODY],
        ["task", "delete", NOBODY],
        ["task", "update", NOBODY, "--name", "x"],
        ["pipeline", "get", "nobody"],
        ["pipeline", "trigger", "nobody"],
        ["pipeline", "stop", "nobody"],
        ["run", "get", NOBODY],
        ["run", "watch", NOBODY],
        ["agent", "get", "nobody"],
        ["agent", "labels", "nobody", "a=b"],
    ],
    ids=" ".join,
)
def test_what_nobody_has_is_4(muster, words):
    done = muster(*words)
    assert (done.returncode, done.stdout) == (4, "")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["rocket"],
        ["task", "create"],
        ["task", "update", NOBODY],
        ["task", "list", "--status", "asleep"],
        ["exec"],
        ["task", "list", "-o", "xml"],
        ["task", "create", "--selector", "cores >> 3", "--", "true"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(muster, words):
    done = muster(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_3(muster):
    for words in (["task", "list"], ["ping"], ["agent", "get", "x"]):
        done = muster(*words, server=NOWHERE)
        assert (done.returncode, done.stdout) == (3, "")
        assert "is the server running?" in done.stderr


def test_a_refusal_is_1_and_names_the_fields(muster):
    done = muster("task", "create", "--depends-on", NOBODY, "--", "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert "depends_on[0]" in done.stderr


def test_output_that_is_piped_is_plain_and_for_programs_it_is_json_or_yaml(muster, data):
    for words in (["task", "list"], ["agent", "list"], ["agent", "get", "worker"]):
        for env in ({}, {"NO_COLOR": "1"}):
            assert COLOUR not in muster(*words, env=env).stdout
    assert isinstance(data("task", "list"), list)
    assert isinstance(data("agent", "get", "worker"), dict)
    assert "agent_id: worker" in muster("agent", "get", "worker", "-o", "yaml").stdout


def test_a_terminal_gets_colours_unless_it_refuses_them(shared, server):
    see = f"{sys.executable} -m cli agent get worker"
    plain = {"MUSTER_SERVER": server.grpc, "TERM": "xterm-256color"}

    def on_terminal(env):
        words = ["script", "--quiet", "--return", "--command", see, "/dev/null"]
        return shared.launcher.run(words, env=env).stdout

    assert COLOUR in on_terminal(plain)
    assert COLOUR not in on_terminal({**plain, "NO_COLOR": "1"})


# ---- up


def test_up_starts_a_server_and_an_agent_and_ctrl_c_stops_both(kit):
    listen = ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    words = ["up", "--data-dir", str(kit.folder / "up"), *listen, "--label", "role=here"]
    program = kit.launcher.start("up", [sys.executable, "-m", "cli", *words])
    eventually(lambda: "Stop:  Ctrl-C" in program.said(), within=30)
    address = re.search(r"gRPC +(\S+)", program.said())[1]
    done = kit.cli("exec", "--label", "role=here", "--", "echo works", server=address)
    assert (done.returncode, done.stdout) == (0, "works\n")
    program.signal(signal.SIGINT)
    assert program.wait() == 0
    assert kit.launcher.marked() == []
    assert "Traceback" not in program.complained()


def test_up_says_which_tasks_it_waits_for_and_a_second_ctrl_c_ends_them(kit, gate):
    listen = ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    words = ["up", "--data-dir", str(kit.folder / "up"), *listen]
    program = kit.launcher.start("up", [sys.executable, "-m", "cli", *words])
    eventually(lambda: "Stop:  Ctrl-C" in program.said(), within=30)
    address = re.search(r"gRPC +(\S+)", program.said())[1]
    script = f"trap '' TERM; touch {kit.folder}/begun; {gate.wait}"
    done = kit.cli("task", "create", "--name", "long", "--", script, server=address)
    assert done.returncode == 0
    eventually((kit.folder / "begun").exists)
    program.signal(signal.SIGINT)
    waits = "waits at most a minute for 1 running task (long); Ctrl-C again ends that at once"
    eventually(lambda: waits in program.complained())
    program.signal(signal.SIGINT)
    assert program.wait(15) == 0
    assert kit.launcher.marked() == []


def test_the_examples_are_right(muster, data):
    done = muster("pipeline", "create", "-f", str(ROOT / "examples" / "hello.yaml"), "-o", "json")
    assert done.returncode == 0, done.stderr
    done = muster("task", "create", "-f", str(ROOT / "examples" / "task.json"))
    assert done.returncode == 0, done.stderr
