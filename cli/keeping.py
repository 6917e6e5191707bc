"""Options that say what stays of a task after its end."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from generated.task.v1 import task_pb2

Function = TypeVar("Function", bound=Callable[..., object])

DEFAULT_NAME = "files"


def keeping_options(function: Function) -> Function:
    """Add `--artifact` and `--keep-workspace`."""
    workspace = click.option(
        "--keep-workspace", is_flag=True, help="Keep its workspace on the agent for a while."
    )
    artifact = click.option(
        "--artifact",
        "kept",
        multiple=True,
        metavar="[NAME=]GLOB",
        help=f"Files of the workspace to keep, also if it fails (NAME: {DEFAULT_NAME}).",
    )
    return artifact(workspace(function))


def artifacts(kept: Sequence[str]) -> list[task_pb2.ArtifactConfig]:
    """Return what is to be kept, from `NAME=GLOB` or a glob alone."""
    found = []
    for text in kept:
        name, equals, path = text.partition("=")
        found.append(
            task_pb2.ArtifactConfig(
                name=name if equals else DEFAULT_NAME,
                path=path if equals else text,
                on_failure=True,
            )
        )
    return found
