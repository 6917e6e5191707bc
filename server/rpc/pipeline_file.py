"""Pipeline files at the door: read by `server.definition`, refused by line and column."""

from server.domain.defining import Description
from server.domain.errors import NotAvailable
from server.domain.pipeline import Definition, Stage


def described_by(text: str) -> Description:
    """Return the pipeline that a file describes.

    Raises:
        Invalid: it is malformed.
    """
    raise NotAvailable("pipeline files")


def jobs_of_file(text: str) -> Definition:
    """Return the stages of a file, to be added to a run.

    Raises:
        Invalid: it is malformed.
    """
    raise NotAvailable("pipeline files")


def stages_checked(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Return stages that came in messages, their conditions read."""
    return stages
