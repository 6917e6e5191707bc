"""Attacks on a real server, one after another, while somebody else works: `make attack`.

Prints a line of JSON for each: how long calls of the bystander take at the 99th percentile without
and with it, and how much the server's memory grew. Load goes to loopback alone and stops by itself.
The exit code is 1 where a bystander's calls failed, or took over three times as long as before. The
attacker is a process of the lowest priority: on a machine of its own it would take none of the
server's time to prepare what it sends.
"""

import argparse
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import grpc
import psutil

from generated.task.v1 import task_pb2, task_pb2_grpc
from tests.e2e.kit import Kit

CALLS = 1500
FACTOR = 3.0
BOMB_BYTES = 100 * 1024 * 1024
HALF_OPEN = 2000
SLOW = 500
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Target(NamedTuple):
    """Where a server is."""

    grpc: str
    http: str


Attack = Callable[[Target, threading.Event], dict[str, object]]


def main() -> int:
    """Tell all attacks and return the exit code."""
    parser = argparse.ArgumentParser(prog="make attack")
    parser.add_argument("names", nargs="*", help=", ".join(ATTACKS))
    parser.add_argument("--on", nargs=2, metavar=("GRPC", "HTTP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or list(ATTACKS)
    if options.on:
        return _attack(ATTACKS[names[0]], Target(*options.on))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    failed = False
    for name in names:
        kit = Kit()
        try:
            failed |= not _tell(name, kit)
        finally:
            kit.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return 1 if failed else 0


def _attack(attack: Attack, target: Target) -> int:
    """Attack until standard input ends, then tell what came of it."""
    os.nice(19)
    stop = threading.Event()
    outcome: dict[str, object] = {}
    attacker = threading.Thread(target=lambda: outcome.update(attack(target, stop)))
    attacker.start()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    sys.stdin.read()
    stop.set()
    attacker.join()
    sys.stdout.write(json.dumps(outcome))
    return 0


def _tell(name: str, kit: Kit) -> bool:
    flags = ("--rate-limit", "2000", "--rate-burst", "4000") if name == "flood" else ()
    server = kit.start_server(*flags)
    process = psutil.Process(server.pid)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = task_pb2_grpc.TaskServiceStub(channel)
        request = task_pb2.CreateTaskRequest(commands=["true"])
        task_id = stub.CreateTask(request, timeout=10).task_id

        def call() -> None:
            stub.GetTask(task_pb2.GetTaskRequest(task_id=task_id), timeout=10)

        _pace(call, 200)
        before, _ = _pace(call, CALLS)
        memory = process.memory_info().rss
        # In a process of its own: it must not take this one's time from the bystander.
        attacker = subprocess.Popen(  # noqa: S603 (this program)
            [sys.executable, "-m", "tests.attack", name, "--on", server.grpc, server.http],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert attacker.stdout is not None
        attacker.stdout.readline()  # it has begun
        during, errors = _pace(call, CALLS)
        grown = process.memory_info().rss - memory
        outcome = json.loads(attacker.communicate()[0])
        after, late = _pace(call, CALLS)
    fine = not errors and not late and during <= FACTOR * before
    figures = {"p99_before_ms": before, "p99_during_ms": during, "p99_after_ms": after}
    told = {name: round(value, 2) for name, value in figures.items()}
    grown_mib = round(grown / 2**20, 1)
    line = {"attack": name, **told, "errors": errors + late, "grown_mib": grown_mib, "fine": fine}
    sys.stdout.write(json.dumps({**line, **outcome}) + "\n")
    sys.stdout.flush()
    return fine


def _pace(call: Callable[[], None], count: int) -> tuple[float, int]:
    """Return the 99th percentile of so many calls in milliseconds, and how many failed."""
    took, errors = [], 0
    for _ in range(count):
        began = time.perf_counter()
        try:
            call()
        except grpc.RpcError:
            errors += 1
        took.append((time.perf_counter() - began) * 1000)
    return statistics.quantiles(took, n=100)[98], errors


@contextmanager
def _sockets() -> Iterator[list[socket.socket]]:
    held: list[socket.socket] = []
    try:
        yield held
    finally:
        for each in held:
            each.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def half_open(server: Target, stop: threading.Event) -> dict[str, object]:
    """Connect to the gRPC port and say nothing, or half of what one says."""
    with _sockets() as held:
        for number in range(HALF_OPEN):
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(_address(server.grpc), timeout=5))
                held[-1].sendall(PREFACE[: number % len(PREFACE)])
        stop.wait()
        return {"connections": len(held)}


def slowloris(server: Target, stop: threading.Event) -> dict[str, object]:
    """Send HTTP requests a letter at a time, from hundreds of connections."""
    opened = closed = 0
    with _sockets() as held:
        while not stop.is_set():
            while len(held) < SLOW and not stop.is_set():
                with contextlib.suppress(OSError):
                    held.append(socket.create_connection(_address(server.http), timeout=5))
                    held[-1].sendall(b"GET /livez HTTP/1.1\r\n")
                    opened += 1
            for each in list(held):
                try:
                    each.sendall(b"x")
                except OSError:
                    each.close()
                    held.remove(each)
                    closed += 1
            stop.wait(0.2)
    return {"opened": opened, "closed_by_server": closed}


def large_messages(server: Target, stop: threading.Event) -> dict[str, object]:
    """Send messages of 100 MB."""
    return _refused_messages(server, stop, compression=grpc.Compression.NoCompression)


def compression_bombs(server: Target, stop: threading.Event) -> dict[str, object]:
    """Send messages of 100 kB that become 100 MB."""
    return _refused_messages(server, stop, compression=grpc.Compression.Gzip)


def _refused_messages(
    server: Target, stop: threading.Event, *, compression: grpc.Compression
) -> dict[str, object]:
    codes: dict[str, int] = {}
    payload = b"\0" * BOMB_BYTES
    options = [("grpc.max_send_message_length", -1)]
    while not stop.is_set():
        with grpc.insecure_channel(server.grpc, options=options) as channel:
            call = channel.unary_unary("/task.v1.TaskService/CreateTask")
            try:
                call(payload, timeout=30, compression=compression)
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
        codes[code] = codes.get(code, 0) + 1
    return {"answers": codes}


def flood(server: Target, stop: threading.Event) -> dict[str, object]:
    """Ask for long lists as fast as one can."""
    through = refused = 0
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        stub = task_pb2_grpc.TaskServiceStub(channel)
        while not stop.is_set():
            try:
                stub.ListTasks(task_pb2.ListTasksRequest(page_size=1000), timeout=10)
                through += 1
            except grpc.RpcError:
                refused += 1
    return {"through": through, "refused": refused}


ATTACKS: dict[str, Attack] = {
    "half_open": half_open,
    "slowloris": slowloris,
    "large_messages": large_messages,
    "compression_bombs": compression_bombs,
    "flood": flood,
}

if __name__ == "__main__":
    sys.exit(main())
