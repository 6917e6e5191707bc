"""What is to be judged of a job once nothing is left for it to wait for."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from server.domain.pipeline import Approval, Job

TEMPLATE = "${{"
"""What a variable's value holds that is to be filled in."""


@dataclass(frozen=True, slots=True)
class Rules:
    """See the module; kept as JSON in the task's row."""

    condition: str = ""
    """In CEL; empty asks for `success()`."""
    after_failure: bool = False
    """Whether it is judged although something it waits for did not go well."""
    fill: tuple[str, ...] = ()
    """Environment variables whose values are to be filled in."""
    fill_steps: bool = False
    """Whether settings of its plugins are to be filled in."""
    matrix: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    """What conditions call those it waits for that are cells of a matrix, by their names."""
    approval: Approval | None = None

    def to_json(self) -> str:
        """Return the rules as JSON; "" when there is nothing to judge."""
        data = {name: value for name, value in asdict(self).items() if value}
        judges = self.condition or self.fill or self.fill_steps or self.approval
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")) if judges else ""

    @staticmethod
    @lru_cache(maxsize=1024)
    def from_json(text: str) -> "Rules":
        """Return the rules that `to_json` wrote; nobody changes them."""
        data = json.loads(text) if text else {}
        if "approval" in data:
            data["approval"]["who"] = tuple(data["approval"]["who"])
            data["approval"] = Approval(**data["approval"])
        return Rules(**{**data, "fill": tuple(data.get("fill", ()))})


def rules_of(job: Job, bases: dict[str, str], fixed: Collection[str], env: dict[str, str]) -> Rules:
    """Return what is to be judged of a job.

    `bases` are those of the jobs it waits for, `env` its variables; whoever started the run has
    given the `fixed` ones, which are taken as they are.
    """
    return Rules(
        condition=job.condition,
        after_failure=job.after_failure,
        fill=tuple(n for n, value in env.items() if TEMPLATE in value and n not in fixed),
        fill_steps=any(
            isinstance(value, str) and TEMPLATE in value
            for step in job.steps
            for value in step.settings.values()
        ),
        matrix=job.matrix,
        bases=bases,
        approval=job.approval,
    )
