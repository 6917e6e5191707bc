"""What agents measure of their hosts."""

import math
from collections.abc import Mapping
from typing import Any

from server.domain.checks import Checks
from server.domain.moment import Moment

CUSTOM_LIMIT = 64
TEXT_LIMIT = 256
SHARES = ("cpu_usage", "memory_usage", "disk_usage")
COUNT_LIMIT = 2**31 - 1


def measured(
    numbers: Mapping[str, float], custom: Mapping[str, str], now: Moment, field: str
) -> dict[str, Any]:
    """Return measurements as they are kept.

    Raises:
        Invalid: a share is no number from 0 to 100, or there are too many others.
    """
    checks = Checks()
    for name in SHARES:
        value = numbers.get(name, 0.0)
        if not (math.isfinite(value) and 0 <= value <= 100):
            checks.fail(f"{field}.{name}", "must be from 0 to 100")
    running = numbers.get("running_tasks", 0)
    if not 0 <= running <= COUNT_LIMIT:
        checks.fail(f"{field}.running_tasks", f"must be from 0 to {COUNT_LIMIT}")
    check_custom(checks, custom, f"{field}.custom_metrics")
    checks.done()
    kept = {name: round(float(numbers.get(name, 0.0)), 2) for name in SHARES}
    return {**kept, "running_tasks": int(running), "custom": dict(custom), "at": now}


def from_text(metrics: Mapping[str, str], now: Moment, field: str) -> dict[str, Any]:
    """Return measurements that came as text, the four known ones among others.

    Raises:
        Invalid: as `measured`.
    """
    known = (*SHARES, "running_tasks")
    numbers = {name: _share(metrics[name]) for name in known if name in metrics}
    others = {name: text for name, text in metrics.items() if name not in known}
    return measured(numbers, others, now, field)


def check_custom(checks: Checks, custom: Mapping[str, str], field: str) -> None:
    """Check measurements by names of an agent's own."""
    checks.number(field, len(custom), 0, CUSTOM_LIMIT)
    for name, text in list(custom.items())[:CUSTOM_LIMIT]:
        checks.name(field, name)
        checks.text(f"{field}[{name!r}]", text, TEXT_LIMIT)


def number(text: str) -> float | None:
    """Return the finite number that a text is, None where it is something else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _share(text: str) -> float:
    value = number(text)
    return math.nan if value is None else value
