"""Structured logs on stderr, in one form for our own records and those of libraries.

`configure` is called once by the process; everybody else takes `structlog.get_logger()`.
What is bound with `structlog.contextvars` (the request id of a call) is in every record.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import Processor

GRPC_CORE = "grpc._cython.cygrpc"

Format = Literal["auto", "json", "console"]

# Libraries that say too much, or what our own records say already.
QUIET = {
    "aiosqlite": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.WARNING,
}


def configure(level: str = "info", form: Format = "auto", stream: TextIO | None = None) -> None:
    """Send every record of this process to the stream (default stderr), one a line."""
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(in_json=_wants_json(form, out), colors=out.isatty()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in QUIET.items():
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(least, root.level))
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
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
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
