"""Messages from files: YAML or JSON in the API's own JSON form, with errors that name the place."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cli.failure import CommandFailed, Refusal
from cli.message_shape import Problem, Reader

LARGEST_FILE = 1024 * 1024
Kind = TypeVar("Kind", bound=Message)


@dataclass
class MessageSource(Generic[Kind]):
    """A message and where in its file each field stands."""

    name: str
    message: Kind
    lines: Mapping[str, int] = field(default_factory=dict)

    def place(self, refusal: Refusal) -> Refusal:
        """Return a server's refusal with the lines of the fields it complained about."""
        violations = [(f"{self._where(path)}{path}", why) for path, why in refusal.violations]
        return Refusal(refusal.summary, refusal.exit_code, violations)

    def _where(self, path: str) -> str:
        """Return the place of a field, or of the nearest one around it that is in the file."""
        while path and path not in self.lines:
            path = re.sub(r"(\.?[^.\[]+|\[[^\]]*\])$", "", path)
        return f"{self.name}:{self.lines[path]}: " if path else f"{self.name}: "


def read_message(path: Path, kind: type[Kind], text: str | None = None) -> MessageSource[Kind]:
    """Return the message in a file; `-` is standard input. `text` is what is known to be in it.

    Raises:
        CommandFailed: naming the file, and the line and field where they are known.
    """
    name = "standard input" if str(path) == "-" else str(path)
    reader = Reader()
    message = kind()
    try:
        data = _parse(_text(path, name) if text is None else text, name)
        plain = reader.read_fields(data, cast(Descriptor, message.DESCRIPTOR), "")
    except RecursionError as error:
        raise CommandFailed(f"{name}: nested too deeply") from error
    if reader.problems:
        raise CommandFailed("\n".join(_tell(name, problem) for problem in reader.problems))
    try:
        return MessageSource(name, ParseDict(plain, message), reader.lines)
    except ParseError as error:  # numbers out of range and the like
        raise CommandFailed(f"{name}: {error}") from error


def _tell(name: str, problem: Problem) -> str:
    line = f":{problem.line}" if problem.line else ""
    where = f"{problem.path}: " if problem.path else ""
    return f"{name}{line}: {where}{problem.why}"


def _text(path: Path, name: str) -> str:
    """Return a file's text."""
    try:
        data = sys.stdin.buffer.read(LARGEST_FILE + 1) if str(path) == "-" else path.read_bytes()
        if len(data) > LARGEST_FILE:
            raise CommandFailed(f"{name}: larger than {LARGEST_FILE >> 20} MiB")
        return data.decode()
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{name}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise CommandFailed(f"{name}: {error.strerror}") from error


def _parse(text: str, name: str) -> object:
    """Return the data in a text: JSON when it begins as JSON does, otherwise YAML."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise CommandFailed(f"{name}:{error.lineno}: {error.msg}") from error
    try:
        return YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise CommandFailed(f"{name}{line}: {error.problem or error.context}") from error
    except YAMLError as error:
        raise CommandFailed(f"{name}: {error}") from error
