"""Run Muster on its own repository: one server, two agents, a pipeline that checks this commit.

Everything is real and on loopback: the programs are started as users start them, HEAD is checked
out into each job's fresh workspace, what one job builds the next one takes, and all that was
started is stopped again. `make demo` runs it.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
sys.path.insert(0, str(ROOT))  # so that it runs without being installed

# ruff: noqa: E402 - the path comes first
import click

from cli.__main__ import leave_quietly
from cli.alongside import alongside
from cli.connection import Api, connect
from cli.exit_codes import Exit
from cli.failure import CommandFailed
from cli.interrupt import Interrupt, StopAskedFor
from cli.log_print import remark
from cli.machine import Machine
from cli.output import print_table
from cli.run_tables import run_status
from cli.run_watch import get_run, print_run_logs, wait_for_run
from cli.settings import Settings
from cli.states import task_status
from cli.task_tables import task_duration
from generated.pipeline.v1 import pipeline_pb2
from generated.task.v1 import task_pb2

RUN_LIMIT = timedelta(minutes=5)
HEADINGS = ("JOB", "AGENT", "STATUS", "DURATION")
ANY_ADDRESS = ("--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")


def main() -> None:
    """Run the demo and exit with 0 only if every job succeeded."""
    try:
        sys.exit(asyncio.run(demonstrate()))
    except BrokenPipeError:
        leave_quietly()
        sys.exit(Exit.BROKEN_PIPE)


async def demonstrate() -> int:
    """Start everything, run the pipeline, stop everything; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="muster-demo-", ignore_cleanup_errors=True) as folder:
        machine = Machine(Path(folder))
        with Interrupt() as interrupt:
            try:
                async with alongside(interrupt.raise_when_asked()):
                    well = await start_and_run(machine)
            except StopAskedFor:
                remark("stopping")
                return interrupt.exit_code
            except (CommandFailed, TimeoutError) as error:
                click.echo(f"Error: {error or 'the run takes too long'}", err=True)
                well = False
            finally:
                await machine.stop(interrupt)
        if not well:
            tell_logs(machine)
        return 0 if well else 1


async def start_and_run(machine: Machine) -> bool:
    """Start one server and two agents and run the pipeline; return whether it went well."""
    server = (await machine.start("server", *ANY_ADDRESS))["grpc"]
    click.echo(f"server is ready on {server}")
    for role in ("test", "build"):
        labels = ("--labels", f"role={role}", "--slots", "2")
        await machine.start("agent", "--server", server, *labels, name=f"agent-{role}")
        click.echo(f"agent role={role} is ready")
    async with alongside(machine.watch()), connect(Settings(server=server)) as api:
        async with asyncio.timeout(RUN_LIMIT.total_seconds()):
            return await run_pipeline(api)


async def run_pipeline(api: Api) -> bool:
    """Create and run the pipeline, show its logs and a summary; return whether it went well."""
    created = await api.call(api.pipelines.CreatePipeline, pipeline())
    request = pipeline_pb2.TriggerPipelineRequest(pipeline_id=created.pipeline_id)
    run_id = (await api.call(api.pipelines.TriggerPipeline, request)).run_id
    click.echo(f"run {run_id}\n")
    await print_run_logs(api, await get_run(api, run_id), follow=True)
    run = await wait_for_run(api, run_id)
    tasks = [await get_task(api, job.task_id) for job in run.jobs]
    click.echo()
    print_table(HEADINGS, map(summary_row, tasks))
    click.echo(f"\nrun ended: {run_status(run.status)}")
    return all(task.status == task_pb2.TASK_STATUS_SUCCESS for task in tasks)


def pipeline() -> pipeline_pb2.CreatePipelineRequest:
    """Return a pipeline that checks the commit this repository is at."""
    python = str(Path(sys.executable).parent)
    git = str(Path(shutil.which("git") or "/usr/bin/git").parent)
    return pipeline_pb2.CreatePipelineRequest(
        name="muster-checks-itself",
        env={
            "PATH": os.pathsep.join([python, git, os.defpath]),
            "PYTHONUNBUFFERED": "1",
        },
        repo_url=f"file://{ROOT}",
        branch="HEAD",
        stages=[
            pipeline_pb2.Stage(name="source", jobs=[look()]),
            pipeline_pb2.Stage(
                name="checks", parallel=True, jobs=[lint_protos(), unit_tests(), build_wheel()]
            ),
            pipeline_pb2.Stage(name="package", jobs=[look_into_wheel()]),
        ],
    )


def look() -> pipeline_pb2.Job:
    """Show which commit is checked; the plugin git-checkout tells its title."""
    return job("look", "echo commit $(git rev-parse HEAD)", "git ls-files | wc -l")


def lint_protos() -> pipeline_pb2.Job:
    """Check the API's definition."""
    return job("lint-protos", "buf lint", "echo 'the protos are clean'")


def unit_tests() -> pipeline_pb2.Job:
    """Run the tests of the rules."""
    # Without the long walk through random histories: a demo is watched.
    tests = "python -m pytest -q tests/unit/server/domain --ignore-glob '*invariants*'"
    return job("unit-tests", tests, role="test")


def build_wheel() -> pipeline_pb2.Job:
    """Build what would be released, and keep it."""
    build = job("build-wheel", "python -m hatchling build -t wheel", "ls -l dist", role="build")
    build.artifacts.add(name="wheel", path="dist/*.whl", expire=True, expire_days=1)
    return build


def look_into_wheel() -> pipeline_pb2.Job:
    """Take what was built, on whichever agent, and look into it."""
    package = job("package", "sha256sum dist/*.whl", "python -m zipfile -l dist/*.whl | wc -l")
    package.inputs.add(job="build-wheel", name="wheel")
    package.no_checkout = True
    return package


def job(name: str, *commands: str, role: str = "") -> pipeline_pb2.Job:
    """Return a job that works in a checkout of this repository."""
    selector = task_pb2.LabelSelector(match_labels={"role": role}) if role else None
    return pipeline_pb2.Job(name=name, commands=commands, timeout=180, label_selector=selector)


async def get_task(api: Api, task_id: str) -> task_pb2.TaskDetail:
    """Return a task as it stands."""
    answer = await api.call(api.tasks.GetTask, task_pb2.GetTaskRequest(task_id=task_id))
    return answer.task


def summary_row(task: task_pb2.TaskDetail) -> tuple[str, ...]:
    """Return a task as a row under HEADINGS."""
    role = task.agent_labels.get("role", "")
    return task.name, f"role={role}" if role else "", task_status(task.status), task_duration(task)


def tell_logs(machine: Machine) -> None:
    """Print the end of every program's log."""
    for program in machine.programs:
        click.echo(f"\nend of the log of {program.name}:\n{program.tail()}", err=True)


if __name__ == "__main__":
    main()
