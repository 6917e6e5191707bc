"""What the session asks the supervisor to run."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.spool import NO_ROOM
from agent.supervisor.frames import Message
from agent.supervisor.outputs import NAME as OUTPUTS

TOLD = ("MUSTER_SERVER", "MUSTER_TLS", "MUSTER_TLS_CA", "MUSTER_CACHE_DIR")
"""What the agent tells its tasks: where the control plane is, and where they keep caches."""

SHELL = ("/bin/sh", "-e")
"""What runs a script."""

PLUGIN_HOST = ("-I", "-m", "plugins.host")
"""What runs a plan, in the agent's own Python: whatever the task has in its folder or variables."""

LONGEST_LEASE_GRACE = 10.0
"""Grace, in seconds, of a task that is stopped because its lease ends: there is no more time."""


def gives_back(cause: str, failure: str) -> bool:
    """Tells whether an end is none: this host could not start the task, another one may."""
    return cause == NO_ROOM or (cause == "not_started" and failure == "infrastructure")


class StartError(Exception):
    """A task's process could not be started.

    Attributes:
        failure: Whose fault it was, `task` or `infrastructure`.
        cause: What the end is called.
    """

    def __init__(self, message: str, failure: str, cause: str = "not_started") -> None:
        super().__init__(message)
        self.failure = failure
        self.cause = cause

    @property
    def handed_back(self) -> bool:
        """Whether the session gives the task back rather than report an end."""
        return gives_back(self.cause, self.failure)


@dataclass(frozen=True)
class Order:
    """One attempt to run, as it arrives over the socket."""

    lease: str
    task: str
    attempt: int
    run: str = ""
    commands: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    directory: str = ""
    timeout: float = 0.0
    kill_grace: float = 10.0
    stop_with_lease: bool = False
    stop_by: float | None = None
    confinement: dict[str, str] = field(default_factory=dict)
    """See `Confinement`; empty for none."""
    plan: str = ""
    """What the plugin host is to do, as JSON; then there are no commands."""
    staged: str = ""
    """A folder whose contents are moved into the workspace, or empty."""
    shown: list[str] = field(default_factory=list)
    """Folders of the agent's that a sandbox does not hide: the plugins that it uses."""
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    """What the session collects after the end; kept for a session that comes later."""
    keep_workspace: bool = False
    """Whether the session keeps the workspace after the end."""

    @property
    def mark(self) -> str:
        """What its processes carry in their environment."""
        return f"{self.task}/{self.attempt}"

    @property
    def script(self) -> bytes:
        """What its shell, or the plugin host, reads."""
        if self.plan:
            return self.plan.encode(errors="replace")
        return "".join(f"{command}\n" for command in self.commands).encode(errors="replace")

    def command(self, script: str) -> tuple[str, ...]:
        """Returns the command that runs what lies at a path."""
        runner = (sys.executable, *PLUGIN_HOST) if self.plan else SHELL
        return (*runner, script)

    def identity(self) -> Message:
        """Returns what the spool keeps about it: nothing that may be secret."""
        return {
            "lease": self.lease,
            "task": self.task,
            "attempt": self.attempt,
            "kill_grace": self.kill_grace,
            "stop_with_lease": self.stop_with_lease,
            **({"artifacts": self.artifacts} if self.artifacts else {}),
            **({"shown": self.shown} if self.shown else {}),
            **({"keep_workspace": True} if self.keep_workspace else {}),
        }

    def start_directory(self, workspace: Path) -> Path:
        """Makes and returns the directory the script starts in.

        Raises:
            StartError: It would lie outside the workspace.
        """
        if not self.directory:
            return workspace
        root = workspace.resolve()
        try:
            directory = (root / self.directory).resolve()
        except ValueError as error:
            raise StartError(f"workspace {self.directory!r}: {error}", "task") from error
        if not directory.is_relative_to(root):
            raise StartError(f"workspace {self.directory!r} leads outside the workspace", "task")
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def environment(
        self, agents: Mapping[str, str], workspace: str, temporary: str
    ) -> dict[str, str]:
        """Returns the environment of its script: a clean one, then the task's own."""
        return {
            "PATH": agents.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "LANG": agents.get("LANG", "C.UTF-8"),
            "HOME": workspace,
            "TMPDIR": temporary,
            **{name: agents[name] for name in TOLD if name in agents},
            **self.env,
            **self.secrets,
            "MUSTER_TASK_ID": self.task,
            "MUSTER_RUN_ID": self.run,
            "MUSTER_ATTEMPT": self.mark,
            "MUSTER_OUTPUT": f"{temporary}/{OUTPUTS}",
        }
