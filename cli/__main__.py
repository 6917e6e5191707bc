"""Start of the `muster` command: runs it and turns every end into an exit code."""

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


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing but a bug in click raises."""
    settings = Settings()
    try:
        return _run(arguments, settings)
    except (BrokenPipeError, OutputClosed):
        return leave_quietly()
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    except Exception as error:
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


def leave_quietly() -> int:
    """End as a program that SIGPIPE killed, without Python's complaint at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.BROKEN_PIPE


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
