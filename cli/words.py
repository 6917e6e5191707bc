"""Words on the command line that are a command for somewhere else."""

import shlex
from collections.abc import Sequence
from datetime import timedelta

# How long a submit goes on trying; long enough for a restart of a connection, not of a server.
SUBMIT_LIMIT = timedelta(seconds=1)


def command_line(words: Sequence[str]) -> str:
    """Return words as one line of shell; a single word already is one."""
    return words[0] if len(words) == 1 else shlex.join(words)
