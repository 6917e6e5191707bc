"""Pipelines from files: a pipeline file, or the fields of a request as YAML or JSON."""

import sys
from dataclasses import dataclass
from pathlib import Path

from cli.failure import CommandFailed, Refusal
from cli.message_file import MessageSource, read_message
from generated.pipeline.v1 import pipeline_pb2

LARGEST_FILE = 1024 * 1024


@dataclass
class PipelineSource:
    """A pipeline from a file, as a request."""

    name: str
    request: pipeline_pb2.CreatePipelineRequest
    fields: MessageSource[pipeline_pb2.CreatePipelineRequest] | None = None
    """Where each field stands, when the file holds the fields of a request."""

    def place(self, refusal: Refusal) -> Refusal:
        """Return a server's refusal with the lines of what it complained about."""
        if self.fields is not None:
            return self.fields.place(refusal)
        told = [("", why.replace("file:", f"{self.name}:", 1)) for _, why in refusal.violations]
        return Refusal(refusal.summary, refusal.exit_code, told)


def read_pipeline(path: Path) -> PipelineSource:
    """Return the pipeline in a file; `-` is standard input.

    Raises:
        CommandFailed: naming the file, and the line and column of each problem.
    """
    from server.definition.expanding import read_definition
    from server.definition.problem import Refused

    name, text = read_text(path)
    try:
        read_definition(text)
    except Refused as refused:
        if not _is_request(text):
            raise CommandFailed("\n".join(refused.describe(name))) from refused
        source = read_message(path, pipeline_pb2.CreatePipelineRequest, text)
        return PipelineSource(name, source.message, source)
    return PipelineSource(name, pipeline_pb2.CreatePipelineRequest(file=text))


REQUEST_WORDS = ("depends_on:", "label_selector:", "trigger_type:", "dependsOn", "labelSelector")
"""What the fields of a request are called and keys of a pipeline file are not."""


def _is_request(text: str) -> bool:
    """Whether a file that is no pipeline file is meant as the fields of a request."""
    return text.lstrip().startswith("{") or any(word in text for word in REQUEST_WORDS)


def read_text(path: Path) -> tuple[str, str]:
    """Return a file's name for people, and its text.

    Raises:
        CommandFailed: it cannot be read, is too large or is not text.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read(LARGEST_FILE + 1) if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{name}: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise CommandFailed(f"{name}: larger than {LARGEST_FILE >> 20} MiB")
    try:
        return name, data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{name}: not UTF-8 text (byte {error.start})") from error


def name_in_file(text: str) -> str:
    """Return the name of the pipeline in a pipeline file that is fine."""
    from server.definition.reading import read_file

    return read_file(text).name


def first_line(text: str) -> str:
    """Return the first line of a file that says something."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")
