"""The `muster-server` program: settings, signals, one line when it serves."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable

# gRPC's own remarks on standard error (a line for each failed handshake) are no lines of the log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import structlog

from server.app import App
from server.config import parse, warnings_about
from server.domain.errors import StoreUnavailable
from server.settings import Settings
from server.stores.sql.database import DatabaseInUseError
from server.stores.sql.migrate import UnknownSchemaError
from servicelog.setup import LogFile, configure

log = structlog.get_logger("server")


def main() -> None:
    """Run the server until SIGTERM or SIGINT; the exit code is 0 after a graceful stop."""
    settings, words = parse(sys.argv[1:])
    if words:
        sys.exit(_command(words[0])(words[1:], settings))
    _set_up_log(settings)
    for warning in warnings_about(settings, os.environ):
        log.warning(warning)
    try:
        asyncio.run(serve(settings))
    except (OSError, DatabaseInUseError, StoreUnavailable, UnknownSchemaError) as error:
        log.error("cannot start", reason=str(error))
        sys.exit(1)


def _command(word: str) -> Callable[[list[str], Settings], int]:
    """Return what carries a command out; imported here, for a server has no use for it."""
    match word:
        case "init" | "certificate" | "agent-certificate":
            from server import init_command

            return {
                "init": init_command.init,
                "certificate": init_command.certificate,
                "agent-certificate": init_command.for_agent,
            }[word]
        case "token":
            from server import token_commands

            return token_commands.run
        case _:
            from server import database_commands

            return database_commands.run


def _set_up_log(settings: Settings) -> None:
    """Begin to log, or end the program with 1."""
    try:
        configure(
            settings.log_level,
            settings.log_format,
            levels=settings.log_levels,
            file=_file_of(settings),
        )
    except OSError as error:
        log.error("cannot start", reason=str(error))  # as structlog is before it is set up
        sys.exit(1)


def _file_of(settings: Settings) -> LogFile | None:
    if settings.log_file is None:
        return None
    return LogFile(settings.log_file, settings.log_file_bytes, settings.log_file_count)


async def serve(settings: Settings) -> None:
    """Serve until a signal comes."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    app = App(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    async with app.serving() as (grpc_address, http_address):
        # What start-up has made lives as long as the process: let no collection walk it again.
        gc.freeze()
        sys.stdout.write(f"ready grpc={grpc_address} http={http_address}\n")
        sys.stdout.flush()
        await app.serve_until_stopped()
        log.info("stopping")


if __name__ == "__main__":
    main()
