"""What each exit code of the command means; scripts may rely on them."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command; `muster exec` adds those of its task."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    TASK_TIMEOUT = 124  # as timeout(1)
    EXEC_FAILED = 125  # as env(1) and docker run: not the task's own exit code
    INTERRUPTED = 130
    BROKEN_PIPE = 141
