"""Which agents fit: label selectors with Kubernetes' meaning."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from server.domain.errors import Violation
from server.domain.label_syntax import check_labels
from server.domain.requirement import Operator, Requirement, check_requirement

__all__ = ["Operator", "Requirement", "Selector", "check_labels", "check_selector"]

CONTAINER_LABEL = "runs/container"
"""Label of agents that run container images: `true`."""

PLUGIN_LABEL = "runs/plugin"
"""Label of agents that run plugins: `true`."""


@dataclass(frozen=True, slots=True)
class Selector:
    """What a task needs of its agent's labels; all ANDed; an empty one fits every agent."""

    match_labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, match_labels: Mapping[str, str], *expressions: Requirement) -> Self:
        """Return a selector with its labels in order."""
        return cls(tuple(sorted(match_labels.items())), expressions)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a label set meets every part."""
        return all(labels.get(key) == value for key, value in self.match_labels) and all(
            requirement.matches(labels) for requirement in self.expressions
        )

    def first_miss(self, labels: Mapping[str, str]) -> str | None:
        """Return a sentence about the first part that a label set misses, or None."""
        for key, value in self.match_labels:
            if labels.get(key) != value:
                return f"It needs {key}={value}, and {_state_of(key, labels)}."
        for requirement in self.expressions:
            if not requirement.matches(labels):
                state = _state_of(requirement.key, labels)
                return f"It needs {requirement.describe()}, and {state}."
        return None

    def keys(self) -> frozenset[str]:
        """Return the labels that this looks at."""
        return frozenset(key for key, _ in self.match_labels) | frozenset(
            requirement.key for requirement in self.expressions
        )

    def describe(self) -> str:
        """Return the selector in one line: `os=linux, gpu exists`, or `any agent`."""
        parts = [f"{key}={value}" for key, value in self.match_labels]
        parts += [requirement.describe() for requirement in self.expressions]
        return ", ".join(parts) or "any agent"

    def canonical(self) -> str:
        """Return JSON that is the same for selectors that differ only in order and repeats."""
        expressions = {
            (requirement.key, _name(requirement.operator), tuple(sorted(set(requirement.values))))
            for requirement in self.expressions
        }
        content = {"labels": dict(sorted(self.match_labels)), "expressions": sorted(expressions)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_canonical(cls, text: str) -> Self:
        """Return the selector that `canonical` wrote."""
        content = json.loads(text)
        return cls.of(
            content["labels"],
            *(
                Requirement(key, Operator[operator] if operator else None, tuple(values))
                for key, operator, values in content["expressions"]
            ),
        )


def _name(operator: Operator | None) -> str:
    return operator.name if operator else ""


def _state_of(key: str, labels: Mapping[str, str]) -> str:
    return f"{key} is {labels[key]!r}" if key in labels else f"there is no label {key}"


def check_selector(selector: Selector, path: str) -> list[Violation]:
    """Return what is wrong with a selector that is found at this path of a request."""
    violations = check_labels(dict(selector.match_labels), f"{path}.match_labels")
    for index, requirement in enumerate(selector.expressions):
        violations += check_requirement(requirement, f"{path}.match_expressions[{index}]")
    return violations
