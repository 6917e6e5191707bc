"""One measured figure and how it is written down."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from bench.numbers import rounded


@dataclass(frozen=True)
class Figure:
    """A number with what it takes to read it."""

    name: str
    value: float
    unit: str
    n: int
    """How many things were measured in a round."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """What the figure depends on: rounds and their values, slots, database …"""

    def line(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self) | {"value": rounded(self.value)}, default=str)
