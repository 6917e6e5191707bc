"""Hostile bytes for everything that reads bytes of others: `make fuzz MINUTES=10 TARGET=frames`.

Each target is a process of its own under atheris, which looks for inputs that reach new code. One
that raises what it should not, takes too long or too much memory ends its process, and the run with
1. Prints a line of JSON for each target.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SECONDS_A_RUN = 5
MEMORY_MIB = 1024
DONE = re.compile(rb"Done (\d+) runs in (\d+) second")


def frames(data: bytes) -> None:
    """What arrives at the supervisor's socket."""
    from agent.supervisor.frames import FrameError, Splitter

    splitter = Splitter()
    half = len(data) // 2
    try:
        for part in (data[:half], data[half:]):
            list(splitter.feed(part))
    except FrameError:
        pass


def tokens(data: bytes) -> None:
    """What a call shows."""
    from server.authenticator import bearer_of
    from server.domain.errors import Unauthenticated
    from server.domain.token import kind_of

    with contextlib.suppress(Unauthenticated):
        kind_of(bearer_of(data.decode(errors="replace")))


def keys(data: bytes) -> None:
    """JSON Web Tokens."""
    from server.domain.errors import Unauthenticated
    from server.engine.clock import Clock
    from server.signing import Audience, SigningKeys

    found = _KEPT.get("keys")
    if found is None:
        found = _KEPT["keys"] = SigningKeys(Path(tempfile.mkdtemp()) / "keys", Clock())
        found.open(make=True)
    with contextlib.suppress(Unauthenticated):
        found.verify(data.decode(errors="replace"), Audience.AGENT)


def key_files(data: bytes) -> None:
    """Files with secrets that sign and encrypt."""
    from server import sealing, signing

    text = data.decode(errors="replace")
    for parse in (signing.parse, sealing.parse):
        with contextlib.suppress(ValueError):
            parse(text)


def sealed(data: bytes) -> None:
    """Secrets that lie beside a task."""
    from server.sealing import KeyVersion, Sealer, SealingError

    with contextlib.suppress(SealingError):
        Sealer([KeyVersion("k", b"k" * 32)]).open_all(data.decode(errors="replace"), "default")


def tasks(data: bytes) -> None:
    """Tasks that are submitted."""
    from google.protobuf.message import DecodeError

    from generated.task.v1 import task_pb2
    from server.domain.errors import MusterError
    from server.rpc.convert import new_task, new_tasks

    for kind, convert in (
        (task_pb2.CreateTaskRequest, new_task),
        (task_pb2.CreateTasksRequest, new_tasks),
    ):
        with contextlib.suppress(DecodeError, MusterError):
            convert(kind.FromString(data), lambda _: "sealed")  # type: ignore[operator]


def pipelines(data: bytes) -> None:
    """Pipelines that are defined."""
    from google.protobuf.message import DecodeError

    from generated.pipeline.v1 import pipeline_pb2
    from server.domain.defining import CreatePipeline, Description
    from server.domain.errors import MusterError
    from server.rpc.convert_pipeline import definition_of

    try:
        request = pipeline_pb2.CreatePipelineRequest.FromString(data)
        CreatePipeline("default", "p", Description(request.name, definition_of(request))).check()
    except (DecodeError, MusterError):
        pass


def pipeline_files(data: bytes) -> None:
    """Pipeline files, and files of schedules."""
    from server.definition.expanding import read_definition
    from server.definition.problem import Refused
    from server.definition.schedule_file import read_schedules

    with contextlib.suppress(Refused):
        read_definition(data)
    for name in ("s.toml", "s.yaml"):
        with contextlib.suppress(Refused):
            read_schedules(name, data)


def conditions(data: bytes) -> None:
    """Conditions and values in CEL, and cron expressions."""
    from datetime import UTC, datetime
    from itertools import islice

    from server.definition.expression import Scope, find_faults, find_template_faults
    from server.definition.schedule import NotAScheduleError, Schedule

    text = data.decode(errors="replace")
    find_faults(text, Scope(needs=frozenset({"a"})), condition=True)
    find_template_faults(text, Scope())
    with contextlib.suppress(NotAScheduleError):
        list(islice(Schedule(text).after(datetime(2025, 1, 1, tzinfo=UTC)), 3))


def deliveries(data: bytes) -> None:
    """What forges deliver."""
    from server.domain.forges import Unread, events_of
    from server.domain.forges.signing import check
    from server.domain.hook import HookKind

    for kind in HookKind:
        headers = {"webhook-signature": data[:64].decode("latin-1"), "x-gitlab-event": "x"}
        check(kind, "x-signature", headers, data, ["whsec_AAAA", "b"], 0)
        for name in ("push", "pull_request", "repo:push", ""):
            with contextlib.suppress(Unread, ValueError, RecursionError):
                events_of(kind, name, json.loads(data))


def log_batches(data: bytes) -> None:
    """Lines that agents hand in."""
    from google.protobuf.message import DecodeError

    from generated.agent.v1 import agent_pb2
    from server.domain.errors import MusterError
    from server.rpc.convert import batch_of

    with contextlib.suppress(DecodeError, MusterError):
        batch_of(agent_pb2.ReportTaskLogRequest.FromString(data))


def allow_lists(data: bytes) -> None:
    """Tasks before a host's allow-lists."""
    from agent.allowing import AllowLists, _compiled
    from generated.agent.v1 import agent_pb2

    lists = AllowLists({"commands": [_compiled("commands", "make *")]})
    line = data.decode(errors="replace")
    refusal = lists.refusal(agent_pb2.Task(commands=[line]))
    words = any(letter in line for letter in ";&|<>$`()")
    if words and not refusal and line.strip():
        raise AssertionError(f"{line!r} got through")


def addresses(data: bytes) -> None:
    """Settings: addresses and durations."""
    from server.address import Address
    from server.settings import parse_duration

    text = data.decode(errors="replace")
    for parse in (Address.parse, parse_duration):
        with contextlib.suppress(ValueError):
            parse(text)  # type: ignore[operator]


_KEPT: dict[str, object] = {}
TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        frames, tokens, keys, key_files, sealed, tasks, pipelines, pipeline_files, conditions,
        deliveries, log_batches, allow_lists, addresses,
    )
}  # fmt: skip


def main() -> int:
    """Fuzz all targets, or those that are named, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("names", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=1.0, help="For all of them together.")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or list(TARGETS)
    seconds = max(SECONDS_A_RUN, round(options.minutes * 60 / len(names)))
    if options.inside:
        return _inside(names[0], seconds)
    return 1 if sum(not _outside(name, seconds) for name in names) else 0


def _inside(name: str, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["server", "agent"]):
        TARGETS[name](b"")
    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MIB}", "-timeout=10"]
    atheris.Setup([name, *limits, "-max_len=65536"], TARGETS[name])
    atheris.Fuzz()
    return 0


def _outside(name: str, seconds: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:  # libFuzzer leaves what it found where it runs
        done = subprocess.run(  # noqa: S603 (this program)
            [
                *(sys.executable, "-m", "tests.fuzz", name, "--inside"),
                *("--minutes", str(seconds / 60)),
            ],
            env={"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin", "HOME": folder},
            cwd=folder,
            capture_output=True,
            check=False,
        )
    found = DONE.search(done.stderr)
    fine = done.returncode == 0 and found is not None
    runs = int(found[1]) if found else 0
    sys.stdout.write(json.dumps({"target": name, "runs": runs, "fine": fine}) + "\n")
    sys.stdout.flush()
    if not fine:
        sys.stderr.write((done.stdout + done.stderr).decode(errors="replace")[-3000:])
    return fine


if __name__ == "__main__":
    sys.exit(main())
