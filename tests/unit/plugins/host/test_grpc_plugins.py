"""Plugins that are servers: what they may do wrong, and how they die."""

import signal
import threading
import time

import psutil
import pytest

MAIN = """#!/usr/bin/env python3
import os, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
import grpc
from generated.plugin.v1 import plugin_pb2 as pb, plugin_pb2_grpc

def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)

HOOK = os.environ.get("DIE", "")

def at(place):
    if HOOK == place:
        die()

def said(text, error=False):
    return pb.ExecuteResponse(output=pb.Output(data=text.encode(), error=error))

def result(**fields):
    return pb.ExecuteResponse(result=pb.Result(**fields))

class Service(plugin_pb2_grpc.PluginServiceServicer):
    id, version, faults = "served", "1.0.0", []

    def Describe(self, request, context):
        at("describe")
        return pb.DescribeResponse(plugin_id=self.id, version=self.version)

    def Validate(self, request, context):
        at("validate")
        return pb.ValidateResponse(faults=[pb.Fault(parameter="a", message=m) for m in self.faults])

    def Execute(self, request, context):
        yield from execute(request, context)

    def Cancel(self, request, context):
        cancel(request)
        return pb.CancelResponse()

def execute(request, context):
    yield said("working\\n")
    at("execute")
    for _ in range(3):
        yield said("more\\n")
    at("result")
    yield result()

def cancel(request):
    pass

#CHANGES

at("start")
server = grpc.server(ThreadPoolExecutor(4))
plugin_pb2_grpc.add_PluginServiceServicer_to_server(Service(), server)
socket = os.environ["PLUGIN_UNIX_SOCKET_DIR"] + "/socket"
server.add_insecure_port("unix:" + socket)
server.start()
at("handshake")
print(f"1|1|unix|{socket}|grpc", flush=True)
at("served")
server.wait_for_termination()
"""


def served(host, changes=""):
    return host.plugin("served", MAIN.replace("#CHANGES", changes), "grpc")


def told(ended):
    """Returns the one line that says why a step failed."""
    lines = [line for line in ended.err.splitlines() if line.startswith("muster: step ")]
    assert len(lines) == 1, ended.err
    assert "Traceback" not in ended.err
    return lines[0].removeprefix("muster: step served@1.0.0: ")


def test_a_plugin_runs(host):
    ended = host.run(served(host))
    assert (ended.code, ended.out, ended.err) == (0, "working\n" + "more\n" * 3, "")


@pytest.mark.parametrize(
    "place", ["start", "handshake", "served", "describe", "validate", "execute", "result"]
)
def test_a_plugin_that_is_killed_fails_its_step_in_one_line(host, place):
    begun = time.monotonic()
    ended = host.run(served(host), env={"DIE": place})
    assert ended.code == 1
    assert "ended by signal 9" in told(ended)
    assert time.monotonic() - begun < 10
    assert list(host.folder.glob("plugin-*/socket")) == []


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("echo hello; exec sleep 60", "its first line is 'hello"),
        ("echo '1|2|unix|/x|grpc'; exec sleep 60", "this agent speaks 1|1|unix|SOCKET|grpc"),
        (
            "echo '1|1|tcp|127.0.0.1:1|grpc'; exec sleep 60",
            "this agent speaks 1|1|unix|SOCKET|grpc",
        ),
        ("exec sleep 60", "it did not say within 0.5 s where it serves"),
        ("head -c 100000 /dev/zero; exec sleep 60", "its first line does not end"),
        ("exit 4", "it ended before it served: exit code 4"),
        ("echo '1|1|unix|/nowhere/at/all|grpc'; exec sleep 60", "the plugin answers UNAVAILABLE"),
    ],
)
def test_a_wrong_handshake_is_told(host, program, words):
    ended = host.run(host.plugin("served", f"#!/bin/sh\n{program}\n", "grpc"), handshake=0.5)
    assert ended.code == 1
    assert words in told(ended)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("Service.id = 'other'", "it says that it is other@1.0.0, and its package served@1.0.0"),
        ("Service.version = '2.0.0'", "it says that it is served@2.0.0"),
        ("Service.faults = ['is odd', 'is even']", "a: is odd; a: is even"),
        ("Service.Describe = lambda *_: time.sleep(30)", "the plugin does not answer within 2 s"),
        ("Service.Validate = lambda *_: 1/0", "the plugin answers UNKNOWN"),
        ("def execute(*_): yield said('x')", "it ended without a result"),
        ("def execute(*_): yield result(outputs={'a b': 'c'})", "it tells 'a b', which is no name"),
    ],
)
def test_a_plugin_that_breaks_the_protocol_is_told_of(host, changes, words):
    ended = host.run(served(host, changes))
    assert ended.code == 1
    assert words in told(ended)


@pytest.mark.parametrize(("code", "told"), [(0, 0), (3, 3), (255, 255), (256, 255), (-1, 255)])
def test_an_exit_code_is_never_taken_for_success(host, code, told):
    ended = host.run(
        served(host, f"def execute(*_): yield result(exit_code={code}, message='why')")
    )
    assert (ended.code, ended.err) == (told, "why\n")


def test_what_it_prints_by_itself_is_all_there(host):
    printing = "print('x' * 3_000_000); print('end', flush=True)"
    changes = f"def execute(*_):\n    {printing}\n    yield result()"
    ended = host.run(served(host, changes))
    assert len(ended.out) == 3_000_005
    assert ended.out.endswith("\nend\n")


def test_outputs_of_several_lines_reach_later_jobs(host):
    values = {"one": "1", "text": "a\nEND\nb=c\n", "empty": "", "odd": "\r \u2028 <<X"}
    changes = f"def execute(*_): yield result(outputs={values!r})"
    first = {"commands": ["printf before=0 >> $MUSTER_OUTPUT"]}
    ended = host.run(first, served(host, changes))
    assert ended.code == 0, ended.err
    assert ended.outputs == ({"before": "0", **values}, "")


def test_outputs_that_cannot_be_written_are_told_in_words(host):
    host.outputs.mkdir()
    host.start(served(host, "def execute(*_): yield result(outputs={'a': 'b'})"))
    _, err = host.process.communicate(timeout=30)
    assert host.process.returncode == 1
    assert err.startswith("muster: step served@1.0.0: [Errno 21] Is a directory")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("way", ["output", "print"])
def test_a_flood_waits_for_its_reader(host, way):
    """Whoever reads slowly is waited for, and memory stays where it was."""
    one = "yield said('x' * 65535 + '\\n')" if way == "output" else "print('x' * 65535, flush=True)"
    changes = f"def execute(*_):\n    for _ in range(1600):\n        {one}\n    yield result()"
    process = host.start(served(host, changes))
    read, peak = 0, 0
    own = psutil.Process(process.pid)
    while piece := process.stdout.read(1_000_000):
        read += len(piece)
        if process.poll() is None:
            peak = max(peak, own.memory_info().rss)
    assert read == 1600 * 65536
    assert peak < 150_000_000


def test_a_stop_asks_the_plugin_and_waits_for_its_result(host):
    changes = """
import threading
stopped = threading.Event()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
graces = []
def cancel(request):
    graces.append(request.grace)
    stopped.set()
def execute(*_):
    yield said('up\\n')
    stopped.wait(30)
    yield said(f'tidying, {graces[0]:g} s left\\n')
    yield result(exit_code=9, message='stopped in order')
"""
    process = host.start(served(host, changes))
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    ended = host.end()
    assert (ended.code, ended.out, ended.err) == (9, "tidying, 7 s left\n", "stopped in order\n")


def test_a_stop_before_it_serves_ends_it(host):
    plugin = host.plugin("served", "#!/bin/sh\necho up >&2\nexec sleep 60\n", "grpc")
    process = host.start(plugin)
    assert process.stderr.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    ended = host.end()
    assert ended.code != 0
    assert "it ended before it served: ended by signal 15" in told(ended)


def test_one_that_does_not_go_after_its_result_is_killed(host):
    changes = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    host.start(served(host, changes))
    timer = threading.Timer(20, host.process.kill)
    timer.start()
    ended = host.end()
    timer.cancel()
    assert ended.code == 0
