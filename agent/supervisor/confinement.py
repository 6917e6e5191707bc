"""What a task's processes may not do: the programs that its shell is started through.

Each is a small tool of the host that does its part and becomes the next; nothing is done in this
process, which starts tasks of all sorts.
"""

import os
import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_SHELL = "/bin/sh"
_COVER_TMP = 'mount --bind "$0" /tmp && exec "$@"'


@dataclass(frozen=True)
class Confinement:
    """How a task is confined. The names of programs are paths.

    Attributes:
        user: Who it runs as; empty is whoever the agent runs as.
        setpriv: The program that gives up privileges; empty keeps what there is.
        unshare: The program that hides /tmp behind the task's own; empty does not.
        bubblewrap: The program of the sandbox; empty runs without.
        hidden: What the sandbox hides: the agent's own folder.
    """

    user: str = ""
    setpriv: str = ""
    unshare: str = ""
    bubblewrap: str = ""
    hidden: str = ""

    def argv(
        self, command: Sequence[str], workspace: str, temporary: str, shown: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """Returns a command, confined; its last word is the file that it reads.

        Args:
            command: What is to run.
            workspace: The task's own folder.
            temporary: The task's own temporary folder.
            shown: What a sandbox does not hide of the agent's own folder.
        """
        script = command[-1]
        if self.setpriv:
            command = [*self._setpriv(), *command]
        if self.bubblewrap:
            command = [*self._sandbox(script, workspace, temporary, shown), *command]
        elif self.unshare:
            private = ["--mount", "--propagation", "private"]
            command = [
                *(self.unshare, *private, _SHELL, "-c", _COVER_TMP, temporary),
                *command,
            ]
        return tuple(command)

    def hand_over(self, folder: str, script: str, *directories: str, whole: str = "") -> None:
        """Gives the task's user what it works in, and a way there; of `whole` all that is in it.

        Raises:
            OSError: It cannot.
            KeyError: There is no such user.
        """
        if not self.user:
            return
        user = pwd.getpwnam(self.user)
        for path in (script, *directories):
            os.chown(path, user.pw_uid, user.pw_gid)
        for where, folders, files in os.walk(whole) if whole else ():
            for name in (*folders, *files):
                os.chown(f"{where}/{name}", user.pw_uid, user.pw_gid, follow_symlinks=False)
        Path(folder).chmod(0o711)

    def _setpriv(self) -> list[str]:
        command = [self.setpriv, "--no-new-privs"]
        if self.user:
            user = pwd.getpwnam(self.user)
            command += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            command += ["--inh-caps=-all"]
        return [*command, "--"]

    def _sandbox(
        self, script: str, workspace: str, temporary: str, shown: Iterable[str]
    ) -> list[str]:
        cache = f"{self.hidden}/cache"
        hidden = ["--tmpfs", self.hidden, "--bind-try", cache, cache] if self.hidden else []
        return [
            self.bubblewrap,
            *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
            *("--bind", temporary, "/tmp"),  # noqa: S108 (the task's own, in its place)
            *hidden,
            *(word for each in shown for word in ("--ro-bind", each, each)),
            *("--bind", workspace, workspace, "--bind", temporary, temporary),
            *("--ro-bind", script, script, "--chdir", workspace),
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--"),
        ]
