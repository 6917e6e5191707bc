"""Compares data from a file with the fields of a message, and says all that does not fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

MOST_NODES = 100_000  # a small file can grow without bounds through aliases
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: range(-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_INT64: range(-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT32: range(2**32),
    FieldDescriptor.CPPTYPE_UINT64: range(2**64),
}


@dataclass(frozen=True)
class Problem:
    """Something that does not fit, and where."""

    path: str
    line: int
    why: str


class Reader:
    """Turns data into what `ParseDict` takes, collecting problems and each field's line."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        self.nodes = 0

    def read_fields(self, data: object, kind: Descriptor, path: str) -> dict[str, object]:
        """Return the fields of a message."""
        if not isinstance(data, Mapping):
            self._complain(path, f"must be a mapping of fields, not {_name(data)}")
            return {}
        known = {f.name: f for f in kind.fields} | {f.json_name: f for f in kind.fields}
        fields: dict[str, object] = {}
        for key, value in data.items():
            place = self._at(f"{path}.{key}" if path else str(key), _key_line(data, key))
            if key not in known:
                names = ", ".join(f.name for f in kind.fields)
                self._complain(place, f"is not a field here; there are {names}")
            elif value is not None:
                fields[str(key)] = self._read_field(value, known[key], place)
        return fields

    def _read_field(self, value: object, field: FieldDescriptor, path: str) -> object:
        """Return the value of a field: a map, a list or a single value."""
        if field.message_type and field.message_type.GetOptions().map_entry:
            return self._read_map(value, field.message_type.fields_by_name["value"], path)
        if field.is_repeated:
            return self._read_list(value, field, path)
        return self._read_value(value, field, path)

    def _read_map(self, data: object, field: FieldDescriptor, path: str) -> object:
        if not isinstance(data, Mapping):
            self._complain(path, f"must be a mapping, not {_name(data)}")
            return {}
        return {
            str(key): self._read_value(
                value, field, self._at(f"{path}[{key}]", _key_line(data, key))
            )
            for key, value in data.items()
        }

    def _read_list(self, data: object, field: FieldDescriptor, path: str) -> object:
        if isinstance(data, str) or not isinstance(data, Sequence):
            self._complain(path, f"must be a list, not {_name(data)}")
            return []
        return [
            self._read_value(value, field, self._at(f"{path}[{i}]", _item_line(data, i)))
            for i, value in enumerate(data)
        ]

    def _read_value(self, value: object, field: FieldDescriptor, path: str) -> object:
        """Return one value as the field wants it."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            if self.nodes == MOST_NODES + 1:
                self._complain("", f"holds more than {MOST_NODES} values")
            return None
        if field.message_type:
            return self.read_fields(value, field.message_type, path)
        if field.enum_type:
            return self._read_enum(value, field.enum_type, path)
        fits, wanted = _expected(field)
        if not fits(value):
            hint = " (put it in quotes)" if field.type == FieldDescriptor.TYPE_STRING else ""
            self._complain(path, f"must be {wanted}, not {_name(value)}{hint}")
        return value

    def _read_enum(self, value: object, kind: EnumDescriptor, path: str) -> object:
        """Return an enum's full name; the short one is accepted."""
        names = [entry.name for entry in kind.values]
        prefix = names[0].removesuffix("UNSPECIFIED")
        for name in names:
            if str(value).upper() in (name, name.removeprefix(prefix)):
                return name
        short = ", ".join(name.removeprefix(prefix) for name in names[1:])
        self._complain(path, f"must be one of {short}")
        return 0

    def _at(self, path: str, line: int) -> str:
        """Note the line of a field and return its path."""
        if line:
            self.lines[path] = line
        return path

    def _complain(self, path: str, why: str) -> None:
        self.problems.append(Problem(path, self.lines.get(path, 0), why))


def _expected(field: FieldDescriptor) -> tuple[Callable[[object], bool], str]:
    """Return a check for a scalar field and how to call what it wants."""
    if field.cpp_type in INTEGERS:
        allowed = INTEGERS[field.cpp_type]
        bits = (allowed.stop - allowed.start - 1).bit_length()
        return lambda value: _is_whole(value) and value in allowed, f"a whole number of {bits} bits"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return lambda value: isinstance(value, bool), "true or false"
    return lambda value: isinstance(value, str), "text"


def _is_whole(value: object) -> bool:
    """Return whether a value is an integer; `in range(…)` would count up to anything else."""
    return isinstance(value, int) and not isinstance(value, bool)


def _key_line(data: object, key: object) -> int:
    """Return the line of a key, from 1, or 0 when it is not known (JSON)."""
    position = getattr(data, "lc", None)
    return int(position.key(key)[0]) + 1 if position else 0


def _item_line(data: object, index: int) -> int:
    """Return the line of a list's item, from 1, or 0 when it is not known (JSON)."""
    position = getattr(data, "lc", None)
    return int(position.item(index)[0]) + 1 if position else 0


def _name(value: object) -> str:
    """Return how people call the kind of a value."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case None:
            return "nothing"
        case _:
            return str(value)
