"""A gate: what a large stage's jobs wait behind, so that nobody counts each pair of jobs.

Two hundred jobs that each wait for two hundred others would be forty thousand dependencies. Instead
the earlier ones *open* a gate and the later ones wait *behind* it, which is one dependency of each.
"""

from dataclasses import dataclass

PAIRS_WITHOUT = 64
"""Dependencies between two stages up to which there is no gate; so small runs are plain to read."""


@dataclass(slots=True)
class Gate:
    """A gate's row."""

    key: int
    namespace: str
    run_key: int
    unmet: int
    """Jobs that have to end before it opens."""
    spoiled: str = ""
    """How the first of them that did not go well has ended, or empty."""
