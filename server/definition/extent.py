"""How much a file amounts to once its matrices are spread out; told before they are.

A short file can ask for very much: cells wait for cells, and every `exclude` is held against every
combination. The server reads files of people it need not trust, so all of that is counted first.
"""

from collections.abc import Mapping

from server.definition.problem import Report
from server.definition.record import Matrix, PipelineFile
from server.domain.pipeline import JOB_LIMIT

MOST_WAITS = 250_000
"""Pairs of jobs of which one names the other, with each cell of a matrix counted."""
MOST_COMPARISONS = 500_000
"""Of combinations with `include` and `exclude`, in a whole file."""


def combinations(matrix: Matrix) -> int:
    """Return how many combinations of values a matrix has before any is taken out."""
    size = 1
    for values in matrix.axes.values():
        size *= len(values)
    return size


def comparisons(matrix: Matrix) -> int:
    """Return about how many steps it takes to find a matrix's cells."""
    return combinations(matrix) * (1 + len(matrix.include) + len(matrix.exclude))


def check_extent(file: PipelineFile, cells: Mapping[str, int], report: Report) -> None:
    """Note where a file becomes too much; `cells` are the jobs that each job becomes."""
    jobs = waits = 0
    for stage in file.stages:
        before = ""
        for job in stage.jobs:
            jobs += cells[job.name]
            if jobs > JOB_LIMIT:
                report.fail(job.path, f"is more than the {JOB_LIMIT} jobs that a file may have")
                return
            named = {*job.needs, before} if before and not stage.parallel else {*job.needs}
            waits += cells[job.name] * sum(cells[name] for name in named)
            if waits > MOST_WAITS:
                text = (
                    f"with it, jobs would wait for others more than {MOST_WAITS} times, each cell "
                    "counted; put it into a later stage, which waits for all at once"
                )
                report.fail(job.path, text)
                return
            before = job.name
