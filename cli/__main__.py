"""Start of the `muster` command: runs it and turns every end into an exit code."""

import errno
import os
import sys
from collections.abc import Sequence

import click

from cli.exit_codes import Exit
from cli.failure import CommandFailed
from cli.framework import OutputClosed
from cli.root import root
from cli.settings import Settings

# gRPC's own remarks on standard error (fork handlers, reconnects) mean nothing to people.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


STDOUT = 1
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing but a bug in click raises."""
    settings = Settings()
    closed = sys.stdout is None
    if closed:
        _stand_in_for_stdout()
    try:
        return _run(arguments, settings)
    except (BrokenPipeError, OutputClosed):
        leave_quietly()
        return Exit.FAILED if closed else Exit.BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            leave_quietly()
            click.echo(f"Error: cannot write: {error.strerror}", err=True)
            return Exit.FAILED
        return _report_bug(error, settings)


def _run(arguments: Sequence[str], settings: Settings) -> int:
    """Run a command line; errors that commands foresee become messages here."""
    color = False if os.environ.get("NO_COLOR") else None
    try:
        result = root.main(
            list(arguments), "muster", standalone_mode=False, obj=settings, color=color
        )
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CommandFailed as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    return result if isinstance(result, int) else Exit.FINE


def leave_quietly() -> None:
    """Let Python end without a complaint about output that nobody takes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stand_in_for_stdout() -> None:
    """Make a standard output that was closed one that nobody reads, before another file gets it."""
    reader, writer = os.pipe()
    if writer != STDOUT:
        os.dup2(writer, STDOUT)
        os.close(writer)
    if reader != STDOUT:
        os.close(reader)
    sys.stdout = open(STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end


def _report_bug(error: Exception, settings: Settings) -> int:
    """Tell an unexpected error in one line, or whole when asked to."""
    if settings.debug or os.environ.get("MUSTER_DEBUG"):
        import traceback  # late: only a bug needs it

        click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo(
        f"Error: muster failed unexpectedly: {type(error).__name__}: {error}"
        " (run it again with --debug for details)",
        err=True,
    )
    return Exit.FAILED


if __name__ == "__main__":
    main()
