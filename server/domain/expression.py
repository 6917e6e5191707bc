"""Conditions and values that a pipeline's author writes; what reads them is not of the domain."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

Facts: TypeAlias = Mapping[str, Any]
"""What an expression may name: texts, numbers, booleans, lists and mappings, as in JSON."""


class ExpressionError(Exception):
    """An expression has no value with these facts; the text says why."""


class Expressions(Protocol):
    """Whoever reads expressions."""

    def holds(self, condition: str, facts: Facts, *, well: bool = True) -> bool:
        """Return whether a condition holds.

        Besides what it names, it may call `always()`, which is true, `success()`, which is `well`
        (all that the job waits for went well), and `failure()`, which is the contrary. One that
        calls neither `always()` nor `failure()` holds only when `well`.

        Raises:
            ExpressionError: it has no value, or one that is neither true nor false.
        """

    def fill(self, text: str, facts: Facts) -> str:
        """Return a text with each `${{ … }}` in it replaced by its value.

        Raises:
            ExpressionError: one has no value, or one that is not a text, number or boolean.
        """


class NoExpressions:
    """Stands in where no pipeline is moved along, as in commands on the database."""

    def holds(self, condition: str, facts: Facts, *, well: bool = True) -> bool:
        """See Expressions."""
        raise ExpressionError(f"nobody here can read the condition {condition!r}")

    def fill(self, text: str, facts: Facts) -> str:
        """See Expressions."""
        raise ExpressionError(f"nobody here can fill in {text!r}")
