"""`plugin.toml`: what a plugin is, what it takes and what it asks for."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from semver import Version

from plugins.package.paths import path_problem
from plugins.package.refusal import PackageRefused, refused

MANIFEST = "plugin.toml"
MAX_MANIFEST = 65_536
"""Bytes."""

ANY = "any"
"""The platform of an entry point that runs everywhere, such as a script."""

ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
PLATFORM = re.compile(r"[a-z0-9]{1,16}/[a-z0-9]{1,16}")
MAX_VERSION = 64
MAX_DESCRIPTION = 1000
MAX_DEPTH = 32
MAX_DOTS = 200
"""Dots in one line: tomllib takes time by the square of the parts of a dotted key."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Type(StrEnum):
    """What a plugin is for."""

    EXECUTOR = "executor"
    STEP = "step"
    NOTIFY = "notify"
    SOURCE = "source"
    CACHE = "cache"


class Protocol(StrEnum):
    """How a plugin is spoken to: gRPC, or `PLUGIN_*` variables and an exit code."""

    GRPC = "grpc"
    SIMPLE = "simple"


class Permission(StrEnum):
    """What a plugin may ask for."""

    NETWORK = "network"
    WORKSPACE = "workspace"
    SECRETS = "secrets"
    ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class Manifest:
    """A checked plugin.toml.

    `entry_points` maps `os/arch`, or `any`, to the path of a program in the package; `parameters`
    is a JSON Schema (2020-12) of an object.
    """

    id: str
    version: Version
    type: Type
    protocol: Protocol
    entry_points: Mapping[str, str]
    parameters: Mapping[str, Any]
    permissions: frozenset[Permission]
    minimum_agent: Version
    description: str

    def entry_point(self, platform: str) -> str | None:
        """Return the program for a platform such as `linux/amd64`; None where there is none."""
        return self.entry_points.get(platform) or self.entry_points.get(ANY)


def parse_version(text: str) -> Version:
    """Return a SemVer version.

    Raises:
        ValueError: it is none, or longer than MAX_VERSION.
    """
    if len(text) > MAX_VERSION or not text.isascii():
        raise ValueError(f"is not a SemVer version of up to {MAX_VERSION} letters, such as 1.2.0")
    try:
        return Version.parse(text)
    except ValueError:
        raise ValueError("is not a SemVer version, such as 1.2.0") from None


def parse_manifest(data: bytes) -> Manifest:
    """Return what a plugin.toml says.

    Raises:
        PackageRefused: it is no TOML, or fields are missing, unknown or wrong; all are named.
    """
    if len(data) > MAX_MANIFEST:
        raise refused(MANIFEST, f"is larger than {MAX_MANIFEST} bytes")
    if any(line.count(b".") > MAX_DOTS for line in data.splitlines()):
        raise refused(MANIFEST, f"has a line with more than {MAX_DOTS} dots")
    try:
        fields = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise refused(MANIFEST, "is not text in UTF-8") from None
    except RecursionError:
        raise refused(MANIFEST, "is nested too deeply") from None
    except ValueError as error:  # also numbers of thousands of digits
        raise refused(MANIFEST, f"is not TOML: {error}") from None
    return _Reader(fields).manifest()


class _Reader:
    """Takes fields one by one and notes what is wrong with each."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._violations: list[tuple[str, str]] = []

    def manifest(self) -> Manifest:
        id_ = self._text("id")
        if id_ and not ID.fullmatch(id_):
            self._wrong("id", "is not 1 to 63 of a-z, 0-9 and '-', with '-' only between others")
        version = self._version("version")
        type_ = self._choice("type", Type)
        protocol = self._choice("protocol", Protocol)
        minimum_agent = self._version("minimum_agent", "0.0.0")
        description = self._text("description", "")
        if len(description) > MAX_DESCRIPTION:
            self._wrong("description", f"is longer than {MAX_DESCRIPTION} letters")
        if not description.isprintable():
            self._wrong("description", "has more than one line, or letters that cannot be shown")
        entry_points = self._entry_points()
        permissions = self._permissions()
        parameters = self._parameters()
        for name in self._fields:
            self._wrong(name, "is unknown")
        if self._violations or version is None or minimum_agent is None:
            raise PackageRefused((f"{MANIFEST}: {field}", why) for field, why in self._violations)
        return Manifest(
            id_,
            version,
            Type(type_),
            Protocol(protocol),
            entry_points,
            parameters,
            permissions,
            minimum_agent,
            description,
        )

    def _wrong(self, field: str, why: str) -> None:
        self._violations.append((field, why))

    def _text(self, field: str, default: str | None = None) -> str:
        value = self._fields.pop(field, default)
        if value is None:
            self._wrong(field, "is missing")
        elif not isinstance(value, str):
            self._wrong(field, "is not text")
        elif not value and default != "":
            self._wrong(field, "is empty")
        else:
            return value
        return ""

    def _version(self, field: str, default: str | None = None) -> Version | None:
        text = self._text(field, default)
        try:
            return parse_version(text) if text else None
        except ValueError as error:
            self._wrong(field, str(error))
        return None

    def _choice(self, field: str, choices: type[StrEnum]) -> str:
        text = self._text(field)
        if text and text not in list(choices):
            self._wrong(field, f"is none of {', '.join(choices)}")
        return text

    def _table(self, field: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        value = self._fields.pop(field, default)
        if isinstance(value, dict):
            return value
        self._wrong(field, "is missing" if value is None else "is not a table")
        return {}

    def _entry_points(self) -> dict[str, str]:
        before = len(self._violations)
        table = self._table("entry_points")
        if not table and len(self._violations) == before:
            self._wrong("entry_points", "is empty")
        for platform, path in table.items():
            field = f"entry_points.{platform}"
            if platform != ANY and not PLATFORM.fullmatch(platform):
                self._wrong(field, "is neither any nor a platform such as linux/amd64")
            if not isinstance(path, str):
                self._wrong(field, "is not text")
            elif problem := path_problem(path):
                self._wrong(field, f"{path!r} {problem}")
        return table

    def _permissions(self) -> frozenset[Permission]:
        value = self._fields.pop("permissions", [])
        if not isinstance(value, list):
            self._wrong("permissions", "is not a list")
            return frozenset()
        for each in value:
            if not isinstance(each, str):
                self._wrong("permissions", "holds what is not text")
            elif each not in list(Permission):
                self._wrong("permissions", f"{each!r} is none of {', '.join(Permission)}")
        return frozenset(Permission(each) for each in value if each in list(Permission))

    def _parameters(self) -> dict[str, Any]:
        schema = self._table("parameters", {"type": "object"})
        if problem := _schema_problem(schema):
            self._wrong("parameters", problem)
        return schema


def _schema_problem(schema: dict[str, Any]) -> str:
    """Return why a table is not a JSON Schema of an object; empty where it is one."""
    from jsonschema import Draft202012Validator  # late: slow to import
    from jsonschema.exceptions import SchemaError

    if problem := _json_problem(schema, 0):
        return problem
    if schema.get("type") != "object":
        return 'type is not "object"'
    if schema.get("$schema", DIALECT) != DIALECT:
        return f"$schema is not {DIALECT}"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"{error.json_path.removeprefix('$.')}: {error.message[:200]}"
    return ""


def _json_problem(value: object, depth: int) -> str:
    """Return why a value of TOML is not one of JSON, or looks outside its own file."""
    if depth > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH}"
    if isinstance(value, dict):
        for key in ("$ref", "$dynamicRef"):
            target = value.get(key)
            if isinstance(target, str) and not target.startswith("#"):
                return f"{key} {target!r} is outside of plugin.toml"
        return next(filter(None, (_json_problem(each, depth + 1) for each in value.values())), "")
    if isinstance(value, list):
        return next(filter(None, (_json_problem(each, depth + 1) for each in value)), "")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        shown = "a number with so many digits" if isinstance(value, int) else value
        return f"{shown} is no value of JSON"
    return ""
