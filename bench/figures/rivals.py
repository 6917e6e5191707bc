"""The same work on Dramatiq and on Celery, in the same run; needs the extra `bench` and a Redis."""

from collections.abc import AsyncIterator
from importlib.util import find_spec

from bench.figure import Figure
from bench.lab import Lab, Unmeasurable

# Figures are known by name also where the rivals are not installed.
RIVALS = ("dramatiq", "celery")


def names(rival: str) -> tuple[str, ...]:
    """Return the names of all figures against a rival."""
    return (
        f"{rival}_noop_tasks_per_second",
        f"noop_ratio_to_{rival}",
        f"{rival}_process_tasks_per_second",
        f"process_ratio_to_{rival}",
        f"{rival}_submit_to_start_ms_p50",
        f"{rival}_submit_to_start_ms_p99",
        f"submit_to_start_ratio_to_{rival}",
    )


FIGURES = tuple(name for rival in RIVALS for name in names(rival))


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family."""
    need("redis", *RIVALS)
    # Here, because they import what only the extra brings.
    from bench.rivals.compare import compare
    from bench.rivals.on_celery import OnCelery
    from bench.rivals.on_dramatiq import OnDramatiq

    for rival, kind in (("dramatiq", OnDramatiq), ("celery", OnCelery)):
        of_it = wanted.intersection(names(rival))
        if of_it:
            async for figure in compare(lab, rival, kind, of_it):
                yield figure


def need(*packages: str) -> None:
    """Do nothing when these can be imported.

    Raises:
        Unmeasurable: one of them is missing.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise Unmeasurable(
            f"{', '.join(missing)} missing; pip install -c constraints.txt '.[bench]' brings it"
        )
