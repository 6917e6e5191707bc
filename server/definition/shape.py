"""What a value may look like: one table reads files by it and writes it down as a JSON Schema.

A shape reads a node of a file into what the program works with. What does not fit is noted in the
report and read as `BAD`; whoever reads it goes on, so that a file is told of all its faults.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Mapping as Map
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any, Final

from server.definition.problem import Place, Report, listed
from server.definition.yaml_tree import Listing, Mapping, Node, Scalar
from server.domain.checks import printable


class _Bad(Enum):
    BAD = "bad"


BAD: Final = _Bad.BAD
"""What a value that does not fit is read as."""

SYNONYMS = {
    "depends_on": "needs",
    "label_selector": "selector",
    "script": "commands",
    "run": "commands",
    "environment": "env",
    "variables": "env",
    "when": "if",
    "rules": "if",
    "tags": "labels",
    "runs-on": "labels",
    "timeout-minutes": "timeout",
    "continue-on-error": "allow_failure",
}
"""What other programs call keys of ours."""

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,8})h)?(?:(\d{1,8})m)?(?:(\d{1,10})s?)?", re.ASCII)
_DURATION_SCHEMA = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s?)?$"


class Shape(ABC):
    """What one value may look like."""

    @abstractmethod
    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD` once the report knows why not."""

    @abstractmethod
    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema; records go to `shared`, and are referred to."""


@dataclass(frozen=True)
class Text(Shape):
    """Text. `loose` also takes numbers and the like, as they are written."""

    loose: bool = False
    pattern: str = ""
    wanted: str = ""
    """What the pattern means, for people: `a name of letters and digits`."""
    at_most: int = 0

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        if not isinstance(node, Scalar) or (node.value is None and not self.loose):
            return _wrong(node, path, report, self.wanted or "text")
        if not isinstance(node.value, str) and not self.loose:
            return _wrong(node, path, report, self.wanted or "text", " (put it in quotes)")
        if self.pattern and not re.fullmatch(self.pattern, node.text, re.ASCII):
            report.fail(path, f"must be {self.wanted}, is {printable(node.text)!r}", node.place)
            return BAD
        if self.at_most and len(node.text) > self.at_most:
            text = f"must have at most {self.at_most} characters, has {len(node.text)}"
            report.fail(path, text, node.place)
            return BAD
        return node.text

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        kinds = ["string", "number", "boolean", "null"] if self.loose else "string"
        made: dict[str, Any] = {"type": kinds}
        if self.pattern:
            made["pattern"] = f"^(?:{self.pattern})$"
        if self.at_most:
            made["maxLength"] = self.at_most
        return made


@dataclass(frozen=True)
class Whole(Shape):
    """A whole number between two bounds, both included."""

    lowest: int
    highest: int

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, int) or isinstance(value, bool):
            return _wrong(node, path, report, "a whole number")
        if not self.lowest <= value <= self.highest:
            text = f"must be from {self.lowest} to {self.highest}, is {value}"
            report.fail(path, text, node.place)
            return BAD
        return value

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}


@dataclass(frozen=True)
class Flag(Shape):
    """True or false."""

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        if not isinstance(node, Scalar) or not isinstance(node.value, bool):
            return _wrong(node, path, report, "true or false")
        return node.value

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Choice(Shape):
    """One of some words."""

    words: tuple[str, ...]

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        if not isinstance(node, Scalar) or node.text not in self.words:
            text = node.text if isinstance(node, Scalar) else ""
            hint = report.hint(text, self.words) if text else ""
            report.fail(path, f"must be {listed(self.words)}{hint}", node.place)
            return BAD
        return node.text

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Duration(Shape):
    """A time: `90` or `90s`, `10m`, `1h30m`, `2d`. Read as seconds."""

    lowest: int
    highest: int

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        text = node.text if isinstance(node, Scalar) else ""
        found = _DURATION.fullmatch(text) if text else None
        if found is None:
            return _wrong(node, path, report, "a time such as 90s, 10m or 1h30m")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if not self.lowest <= total <= self.highest:
            text = f"must be from {in_words(self.lowest)} to {in_words(self.highest)}"
            report.fail(path, f"{text}, is {in_words(total)}", node.place)
            return BAD
        return total

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        number = {"type": "integer", "minimum": self.lowest, "maximum": self.highest}
        return {"anyOf": [number, {"type": "string", "pattern": _DURATION_SCHEMA, "minLength": 1}]}


@dataclass(frozen=True)
class ListOf(Shape):
    """A list; where `alone` is set, one value is a list of one."""

    item: Shape
    least: int = 0
    most: int = 0
    alone: bool = False

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        if not isinstance(node, Listing):
            if self.alone and not (isinstance(node, Scalar) and node.value is None):
                return _without_bad([self.item.read(node, path, report)])
            return _wrong(node, path, report, "a list")
        if len(node.items) < self.least:
            report.fail(path, f"must have at least {self.least}", node.place)
            return BAD
        if self.most and len(node.items) > self.most:
            report.fail(path, f"must have at most {self.most}, has {len(node.items)}", node.place)
            return BAD
        values = []
        for index, item in enumerate(node.items):
            report.stands(f"{path}[{index}]", item.place)
            values.append(self.item.read(item, f"{path}[{index}]", report))
        return _without_bad(values)

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        item = self.item.schema(shared)
        made: dict[str, Any] = {"type": "array", "items": item}
        if self.least:
            made["minItems"] = self.least
        if self.most:
            made["maxItems"] = self.most
        return {"anyOf": [item, made]} if self.alone else made


@dataclass(frozen=True)
class MapOf(Shape):
    """Values by names of the author's own choice."""

    value: Shape
    key: Text = field(default_factory=Text)

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        if not isinstance(node, Mapping):
            return _wrong(node, path, report, "a mapping")
        values = {}
        for name, (key, value) in node.entries.items():
            place = f"{path}[{printable(name)}]"
            report.stands(place, key.place)
            if self.key.pattern and not re.fullmatch(self.key.pattern, name, re.ASCII):
                report.fail(place, f"must be {self.key.wanted}", key.place)
                continue
            values[name] = self.value.read(value, place, report)
        return {name: value for name, value in values.items() if value is not BAD}

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        made = {"type": "object", "additionalProperties": self.value.schema(shared)}
        if self.key.pattern:
            made["propertyNames"] = {"pattern": f"^(?:{self.key.pattern})$"}
        return made


@dataclass(frozen=True)
class Field:
    """One key of a record."""

    shape: Shape
    about: str
    """What it means, for people; in the JSON Schema too."""
    required: bool = False
    attribute: str = ""
    """The record's attribute, where it has another name than the key."""


@dataclass(frozen=True)
class Record(Shape):
    """A mapping with keys that are known; `empty` takes nothing at all for one without any."""

    kind: Callable[..., Any]
    """A dataclass that also has a `path`."""
    about: str
    known: Map[str, Field]
    empty: bool = False

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        if self.empty and isinstance(node, Scalar) and node.value in (None, True):
            return self._build({}, path)
        if not isinstance(node, Mapping):
            return _wrong(node, path, report, f"a mapping with {listed(list(self.known)[:4])}")
        values: dict[str, object] = {}
        for name, (key, value) in node.entries.items():
            place = f"{path}.{printable(name)}" if path else printable(name)
            report.stands(place, value.place if isinstance(value, Scalar) else key.place)
            if name not in self.known:
                report.fail(place, self._unknown(name, report), key.place)
            else:
                found = self.known[name]
                values[found.attribute or name] = found.shape.read(value, place, report)
        self._require(node, path, report)
        return self._build(values, path)

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        name = str(getattr(self.kind, "__name__", "Record"))
        if name not in shared:
            shared[name] = {}  # so that a record inside itself ends here
            shared[name] = self._schema(shared)
        reference = {"$ref": f"#/$defs/{name}"}
        return {"anyOf": [reference, {"enum": [None, True]}]} if self.empty else reference

    def _schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {
            "type": "object",
            "description": self.about,
            "properties": {
                name: {"description": each.about} | each.shape.schema(shared)
                for name, each in self.known.items()
            },
            "additionalProperties": False,
        }
        if required := [name for name, each in self.known.items() if each.required]:
            made["required"] = required
        return made

    def _unknown(self, name: str, report: Report) -> str:
        other = SYNONYMS.get(name, "")
        hint = f"; here it is {other!r}" if other in self.known else report.hint(name, self.known)
        return f"is not known here{hint or '; there are ' + ', '.join(self.known)}"

    def _require(self, node: Mapping, path: str, report: Report) -> None:
        for name, each in self.known.items():
            if each.required and name not in node.entries:
                place = f"{path}.{name}" if path else name
                report.fail(place, "is missing", node.place)

    def _build(self, values: dict[str, object], path: str) -> object:
        good = {name: value for name, value in values.items() if value is not BAD}
        for each in fields(self.kind):  # type: ignore[arg-type]  # a dataclass, as said
            lacks = each.default is MISSING and each.default_factory is MISSING
            if lacks and each.name not in good and each.name != "path":
                good[each.name] = ""  # the report has said that it is missing or bad
        return self.kind(path=path, **good)


@dataclass(frozen=True)
class Shorthand(Shape):
    """A shape that may be written shorter."""

    shape: Shape
    short: Shape
    """What the short form looks like, in the JSON Schema."""
    written_out: Callable[[Node], Node]
    """Makes the long form of a short one; what is not short comes back as it is."""

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        return self.shape.read(self.written_out(node), path, report)

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        return {"anyOf": [self.short.schema(shared), self.shape.schema(shared)]}


@dataclass(frozen=True)
class Either(Shape):
    """Text, or something else."""

    text: Shape
    other: Shape

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        chosen = self.text if isinstance(node, Scalar) else self.other
        return chosen.read(node, path, report)

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        return {"anyOf": [self.text.schema(shared), self.other.schema(shared)]}


@dataclass(frozen=True)
class Anything(Shape):
    """Any data; a number, true, false and nothing are what they look like."""

    def read(self, node: Node, path: str, report: Report) -> object:
        """Return what a node means, or `BAD`."""
        if isinstance(node, Scalar):
            return node.value
        if isinstance(node, Listing):
            found = []
            for index, item in enumerate(node.items):
                report.stands(f"{path}[{index}]", item.place)
                found.append(self.read(item, f"{path}[{index}]", report))
            return found
        data = {}
        for name, (key, value) in node.entries.items():
            place = f"{path}[{printable(name)}]"
            report.stands(place, value.place if isinstance(value, Scalar) else key.place)
            data[name] = self.read(value, place, report)
        return data

    def schema(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shape as JSON Schema."""
        return {}


def one_key(name: str) -> Callable[[Node], Node]:
    """Return what makes `{name: VALUE}` of anything that is not a mapping."""

    def written_out(node: Node) -> Node:
        if isinstance(node, Mapping) or (isinstance(node, Scalar) and node.value is None):
            return node
        return Mapping(node.place, {name: (Scalar(node.place, name, name), node)})

    return written_out


def keys_of_list(same: bool) -> Callable[[Node], Node]:
    """Return what makes a mapping of a list of words, each with itself or nothing as its value."""

    def written_out(node: Node) -> Node:
        words = [node] if isinstance(node, Scalar) and isinstance(node.value, str) else []
        if isinstance(node, Listing):
            words = [item for item in node.items if isinstance(item, Scalar)]
            if len(words) != len(node.items):
                return node
        if not words:
            return node
        made = Mapping(node.place)
        for word in words:
            made.entries[word.text] = (word, word if same else Scalar(word.place, None, ""))
        return made

    return written_out


def in_words(seconds: int) -> str:
    """Return a time as people write it: `1h30m`."""
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def name_of(node: Node) -> str:
    """Return how people call what a node is."""
    match node:
        case Listing():
            return "a list"
        case Mapping():
            return "a mapping"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool()):
            return node.text
        case Scalar(value=int() | float()):
            return f"the number {node.text[:32]}"
    return f"the text {printable(node.text)!r}"


def _wrong(node: Node, path: str, report: Report, wanted: str, hint: str = "") -> object:
    place: Place = node.place
    report.fail(path, f"must be {wanted}, not {name_of(node)}{hint}", place)
    return BAD


def _without_bad(values: list[object]) -> tuple[object, ...]:
    return tuple(value for value in values if value is not BAD)
