"""Build descriptors of the released v1 API from its table alone.

Usage: python tools/contract/table_to_image.py > tools/contract/released.binpb

The image is what `buf breaking` compares proto/ with, and what the tests' v1 client is made of:
that client knows nothing of what we added.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

TABLE = Path(__file__).with_name("api_v1.tsv")


class Row(NamedTuple):
    """One line of the table."""

    kind: str  # rpc, field or enum
    owner: str  # the service's, message's or enum's full name
    name: str
    number: str  # an rpc's shape
    type: str  # an rpc's `request -> response`


def read(table: Path = TABLE) -> list[Row]:
    """Return the table's rows."""
    lines = table.read_text(encoding="utf-8").splitlines()
    return [Row(*(line + "\t" * 4).split("\t")[:5]) for line in lines]


def image(rows: Iterable[Row]) -> FileDescriptorSet:
    """Return one file for each package, each after those it imports."""
    builder = _Builder(list(rows))
    return FileDescriptorSet(file=builder.files_in_import_order())


class _Builder:
    def __init__(self, rows: list[Row]) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        self._messages: dict[str, DescriptorProto] = {}
        self._enums: dict[str, EnumDescriptorProto] = {}
        self._services: dict[str, ServiceDescriptorProto] = {}
        enums = [row for row in rows if row.kind == "enum"]
        for row in enums:
            self._enum(row.owner).value.add(name=row.name, number=int(row.number))
        for row in rows:
            if row.kind == "rpc":
                self._add_rpc(row)
            elif row.kind == "field":
                self._add_field(row)

    def files_in_import_order(self) -> list[FileDescriptorProto]:
        """Return the files so that each comes after those it depends on."""
        by_name = {file.name: file for file in self._files.values()}
        ordered: dict[str, FileDescriptorProto] = {}

        def place(name: str) -> None:
            for dependency in by_name[name].dependency:
                place(dependency)
            ordered[name] = by_name[name]

        for name in sorted(by_name):
            place(name)
        return list(ordered.values())

    def _file(self, full_name: str) -> FileDescriptorProto:
        package = full_name.rpartition(".")[0]
        if package not in self._files:
            name = f"{package.replace('.', '/')}/{package.split('.')[0]}.proto"
            self._files[package] = FileDescriptorProto(name=name, package=package, syntax="proto3")
        return self._files[package]

    def _message(self, full_name: str) -> DescriptorProto:
        if full_name not in self._messages:
            messages = self._file(full_name).message_type
            self._messages[full_name] = messages.add(name=_last(full_name))
        return self._messages[full_name]

    def _enum(self, full_name: str) -> EnumDescriptorProto:
        if full_name not in self._enums:
            self._enums[full_name] = self._file(full_name).enum_type.add(name=_last(full_name))
        return self._enums[full_name]

    def _service(self, full_name: str) -> ServiceDescriptorProto:
        if full_name not in self._services:
            self._services[full_name] = self._file(full_name).service.add(name=_last(full_name))
        return self._services[full_name]

    def _add_rpc(self, row: Row) -> None:
        request, response = row.type.split(" -> ")
        for name in (request, response):
            self._message(name)
            self._import(name, row.owner)
        self._service(row.owner).method.add(
            name=row.name,
            input_type=f".{request}",
            output_type=f".{response}",
            client_streaming=row.number in {"client_stream", "bidi"},
            server_streaming=row.number in {"server_stream", "bidi"},
        )

    def _add_field(self, row: Row) -> None:
        message = self._message(row.owner)
        field = message.field.add(name=row.name, number=int(row.number), json_name=_camel(row.name))
        kind, _, oneof = row.type.partition(" oneof=")
        if kind.startswith("map<"):
            kind = self._add_map_entry(message, row, kind)
            field.label = FieldDescriptorProto.LABEL_REPEATED
        elif kind.startswith("repeated "):
            kind = kind.removeprefix("repeated ")
            field.label = FieldDescriptorProto.LABEL_REPEATED
        else:
            field.label = FieldDescriptorProto.LABEL_OPTIONAL
        self._set_type(field, kind, row.owner)
        if oneof:
            field.oneof_index = _oneof_index(message, oneof)

    def _add_map_entry(self, message: DescriptorProto, row: Row, kind: str) -> str:
        """Add the message that a map's entries are, and return its full name."""
        name = "".join(part.capitalize() for part in row.name.split("_")) + "Entry"
        entry = message.nested_type.add(name=name)
        entry.options.map_entry = True
        types = kind.removeprefix("map<").removesuffix(">").split(",")
        for number, (part, part_type) in enumerate(zip(("key", "value"), types, strict=True), 1):
            field = entry.field.add(name=part, number=number, json_name=part)
            field.label = FieldDescriptorProto.LABEL_OPTIONAL
            self._set_type(field, part_type, row.owner)
        return f"{row.owner}.{name}"

    def _set_type(self, field: FieldDescriptorProto, kind: str, owner: str) -> None:
        if "." not in kind:
            field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
            return
        is_enum = kind in self._enums
        field.type = (
            FieldDescriptorProto.TYPE_ENUM if is_enum else FieldDescriptorProto.TYPE_MESSAGE
        )
        field.type_name = f".{kind}"
        if not kind.startswith(f"{owner}."):
            self._import(kind, owner)

    def _import(self, name: str, owner: str) -> None:
        file, imported = self._file(owner), self._file(name)
        if file.name != imported.name and imported.name not in file.dependency:
            file.dependency.append(imported.name)


def _oneof_index(message: DescriptorProto, name: str) -> int:
    names = [oneof.name for oneof in message.oneof_decl]
    if name not in names:
        message.oneof_decl.add(name=name)
        names.append(name)
    return names.index(name)


def _last(full_name: str) -> str:
    return full_name.rpartition(".")[2]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


if __name__ == "__main__":
    sys.stdout.buffer.write(image(read()).SerializeToString(deterministic=True))
