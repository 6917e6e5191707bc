"""A plan of a run, as people read it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from cli.exit_codes import Exit
from cli.failure import CommandFailed
from cli.output import print_table, show_data
from cli.pipeline_source import read_text

HEADINGS = ("STAGE", "JOB", "WOULD", "AFTER", "WHY")


def print_plan(path: Path, event_file: Path | None, branch: str, inputs: Mapping[str, str]) -> int:
    """Print what a run of a pipeline file would do; return the exit code.

    Raises:
        CommandFailed: a file or an input is malformed.
    """
    from server.definition.event_file import NotAnEventError, asked_for, read_event
    from server.definition.expanding import read_definition
    from server.definition.planning import WrongInputsError, plan
    from server.definition.problem import Refused

    name, text = read_text(path)
    try:
        event = asked_for(branch)
        if event_file is not None:
            event = read_event(read_text(event_file)[1], branch)
        file, definition = read_definition(text)
        planned = plan(definition, event, file.name, inputs)
    except Refused as refused:
        raise CommandFailed("\n".join(refused.describe(name))) from refused
    except NotAnEventError as error:
        raise CommandFailed(f"{event_file}: {error}") from error
    except WrongInputsError as error:
        raise CommandFailed(str(error)) from error

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
