"""One requirement on one label, as Kubernetes means it.

NOT_IN and NOT_EXISTS also match where the key is absent; GT and LT need the label to be present
and an integer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from server.domain.errors import Violation
from server.domain.label_syntax import as_integer, key_problem, value_problem


class Operator(Enum):
    """How a requirement compares a label with its values; the names are those of the API."""

    IN = "in"
    NOT_IN = "not in"
    EXISTS = "exists"
    NOT_EXISTS = "does not exist"
    GT = ">"
    LT = "<"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement on one label. An operator of None is one that nobody specified."""

    key: str
    operator: Operator | None
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a label set meets this; a malformed requirement is never met."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.NOT_EXISTS:
                return value is None
            case Operator.GT | Operator.LT:
                return self._compares(value)
            case None:
                return False

    def _compares(self, value: str | None) -> bool:
        have = as_integer(value or "")
        limit = as_integer(self.values[0]) if len(self.values) == 1 else None
        if have is None or limit is None:
            return False
        return have > limit if self.operator is Operator.GT else have < limit

    def describe(self) -> str:
        """Return the requirement as people write it: `os in (linux, darwin)`, `gpu exists`."""
        match self.operator:
            case Operator.IN | Operator.NOT_IN:
                return f"{self.key} {self.operator.value} ({', '.join(self.values)})"
            case Operator.GT | Operator.LT:
                return f"{self.key} {self.operator.value} {', '.join(self.values)}"
            case Operator.EXISTS | Operator.NOT_EXISTS:
                return f"{self.key} {self.operator.value}"
            case None:
                return f"{self.key} ?"


def check_requirement(requirement: Requirement, path: str) -> list[Violation]:
    """Return what is wrong with a requirement that is found at this path of a request."""
    violations = []
    if problem := key_problem(requirement.key):
        violations.append(Violation(f"{path}.key", problem))
    if requirement.operator is None:
        violations.append(Violation(f"{path}.operator", "should be one of the six operators"))
    elif problem := _values_problem(requirement.operator, requirement.values):
        violations.append(Violation(f"{path}.values", problem))
    violations += [
        Violation(f"{path}.values[{index}]", problem)
        for index, value in enumerate(requirement.values)
        if (problem := value_problem(value))
    ]
    return violations


def _values_problem(operator: Operator, values: tuple[str, ...]) -> str | None:
    match operator:
        case Operator.IN | Operator.NOT_IN:
            return None if values else f"{operator.name} needs at least one value"
        case Operator.EXISTS | Operator.NOT_EXISTS:
            return f"{operator.name} takes no values" if values else None
        case Operator.GT | Operator.LT:
            fits = len(values) == 1 and as_integer(values[0]) is not None
            return None if fits else f"{operator.name} needs exactly one 64-bit integer"
