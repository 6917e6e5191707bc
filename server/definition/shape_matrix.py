"""The shape of a matrix: axes by names of the author's choice, `include` and `exclude`."""

from dataclasses import dataclass
from typing import Any

from server.definition.matrix import MOST_CELLS
from server.definition.problem import Report
from server.definition.record import Matrix
from server.definition.shape import BAD, ListOf, MapOf, Shape, Text, name_of
from server.definition.yaml_tree import Mapping, Node

NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"


_WORDS = Text(pattern=NAME, wanted="a name of letters, digits and _")
_AXIS = ListOf(Text(loose=True), least=1, most=MOST_CELLS, alone=True)
_CELLS = ListOf(MapOf(Text(loose=True), _WORDS), most=MOST_CELLS, alone=True)
_LISTS = ("include", "exclude")


@dataclass(frozen=True)
class MatrixShape(Shape):
    """Every combination of the axes' values, but for those taken out, and with those put in."""

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return the matrix, or `BAD`; every value is text, as it is written."""
        if not isinstance(node, Mapping):
            why = f"must be a mapping of names to lists of values, not {name_of(node)}"
            report.fail(path, why, node.place)
            return BAD
        found: dict[str, Any] = {}
        axes = Mapping(node.place)
        for name, (key, value) in node.entries.items():
            if name in _LISTS:
                report.stands(f"{path}.{name}", key.place)
                found[name] = _CELLS.read(value, f"{path}.{name}", report)
            else:
                axes.entries[name] = (key, value)
        found["axes"] = MapOf(_AXIS, _WORDS).read(axes, path, report)
        if not axes.entries and "include" not in node.entries:
            report.fail(path, "must have at least one name with a list of values", node.place)
        return Matrix(
            path=path, **{name: value for name, value in found.items() if value is not BAD}
        )

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        return {
            "type": "object",
            "minProperties": 1,
            "properties": dict.fromkeys(_LISTS, _CELLS.schema(shared)),
            "propertyNames": {"pattern": f"^(?:{NAME})$"},
            "additionalProperties": _AXIS.schema(shared),
        }
