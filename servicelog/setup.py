"""Structured logs on stderr, in one form for our own records and those of libraries.

`configure` is called once by the process; everybody else takes `structlog.get_logger()`.
What is bound with `structlog.contextvars` (the request id of a call) is in every record.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal, TextIO, get_args

import structlog
from structlog.typing import Processor

from servicelog.redaction import redact

GRPC_CORE = "grpc._cython.cygrpc"

Format = Literal["auto", "json", "console"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Libraries that say too much, or what our own records say already.
QUIET = {
    "aiosqlite": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    # They tell whole URLs, and whoever has a presigned one needs no more.
    "httpcore2": logging.WARNING,
    "httpx2": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.WARNING,
}


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file for records, with as many older ones beside it: NAME.1 is the newest of those."""

    path: Path
    size: int
    """Bytes after which a new file is begun."""
    count: int
    """Older files kept."""


def configure(
    level: str = "info",
    form: Format = "auto",
    stream: TextIO | None = None,
    *,
    levels: Mapping[str, str] | None = None,
    file: LogFile | None = None,
) -> None:
    """Send every record of this process to the stream (default stderr), one a line.

    `levels` are those of modules that are not to have `level`. With `file` records go there too,
    always as JSON.

    Raises:
        OSError: the file cannot be written.
    """
    out = sys.stderr if stream is None else stream
    handler: logging.Handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(in_json=_wants_json(form, out), colors=out.isatty()))
    root = logging.getLogger()
    for older in root.handlers:
        older.close()
    root.handlers = [handler]
    if file is not None:
        root.addHandler(_rotating(file))
    root.setLevel(level.upper())
    for name, least in QUIET.items():
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(least, root.level))
    for name, least_of_module in (levels or {}).items():
        logging.getLogger(name).setLevel(least_of_module.upper())
    logging.getLogger(GRPC_CORE).addFilter(_worth_telling)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a test may configure again
    )
    logging.captureWarnings(capture=True)


def _rotating(file: LogFile) -> logging.Handler:
    """Return what writes into a file, and begins a new one when it is full."""
    file.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = RotatingFileHandler(
        file.path, maxBytes=file.size, backupCount=file.count, encoding="utf-8", errors="replace"
    )
    handler.setFormatter(_formatter(in_json=True, colors=False))
    return handler


def _worth_telling(record: logging.LogRecord) -> bool:
    """Leave out what gRPC says, as an error with a traceback, when a client hangs up on it."""
    return "ExecuteBatchError" not in record.getMessage()


def _wants_json(form: Format, out: TextIO) -> bool:
    return form == "json" or (form == "auto" and not out.isatty())


def _shared() -> list[Processor]:
    """Return what every record passes, whoever wrote it."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _formatter(*, in_json: bool, colors: bool) -> logging.Formatter:
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact]
    if in_json:
        last += [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        last.append(
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback
            )
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder()], processors=last
    )
