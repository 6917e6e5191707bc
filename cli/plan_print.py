"""A plan of a run, as people read it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.exit_codes import Exit
from cli.failure import CommandFailed
from cli.output import print_table, show_data
from cli.pipeline_source import read_text

if TYPE_CHECKING:
    from server.domain.trigger_event import TriggerEvent

HEADINGS = ("STAGE", "JOB", "WOULD", "AFTER", "WHY")


def print_plan(path: Path, event_file: Path | None, branch: str, inputs: Mapping[str, str]) -> int:
    """Print what a run of a pipeline file would do; return the exit code.

    Raises:
        CommandFailed: a file or an input is malformed.
    """
    from server.definition.expanding import read_definition
    from server.definition.planning import plan
    from server.definition.problem import Refused
    from server.domain.errors import Invalid

    name, text = read_text(path)
    event = read_event(event_file, branch)
    try:
        file, definition = read_definition(text)
        planned = plan(definition, event, file.name, inputs)
    except Refused as refused:
        raise CommandFailed("\n".join(refused.describe(name))) from refused
    except Invalid as invalid:
        raise CommandFailed(str(invalid)) from invalid

    def for_people() -> None:
        if planned.refused:
            click.echo(f"No run is started: {planned.refused}.\nIf one were:\n")
        rows = (
            (job.stage, job.name, job.verdict, ", ".join(job.after), job.reason)
            for job in planned.jobs
        )
        print_table(HEADINGS, rows)

    show_data(asdict(planned), for_people)
    return Exit.FAILED if planned.refused else Exit.FINE


def read_event(path: Path | None, branch: str) -> "TriggerEvent":
    """Return the event in a file, or that somebody asks for a run.

    Raises:
        CommandFailed: the file is malformed.
    """
    from server.domain.trigger_event import KINDS, TriggerEvent

    if path is None:
        return TriggerEvent(kind="manual", branch=branch)
    name, text = read_text(path)
    try:
        data = json.loads(text)
    except ValueError as error:
        raise CommandFailed(f"{name}: not JSON: {error}") from error
    known = set(TriggerEvent(kind="manual").to_facts())
    if not isinstance(data, dict) or data.get("kind") not in KINDS:
        raise CommandFailed(f"{name}: kind: must be one of {', '.join(KINDS)}")
    if unknown := sorted(set(data) - known):
        there_are = ", ".join(sorted(known))
        raise CommandFailed(f"{name}: {unknown[0]}: is not known; there are {there_are}")
    if branch:
        data["branch"] = branch
    return TriggerEvent.from_facts(data)
