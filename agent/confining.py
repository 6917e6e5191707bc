"""How the agent confines its tasks: checked at its start, so that no task is the first to learn."""

import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Any

CACHE = "cache"
"""Name of the folder that tasks keep caches in."""

DEFAULT_USER = "nobody"

_TMP = "/tmp"  # noqa: S108 (what tasks get their own of)


class ConfinementError(Exception):
    """The host cannot confine tasks as wanted; the message says what it lacks."""


def confinement(
    data_dir: Path,
    *,
    hardened: bool,
    user: str,
    no_new_privileges: bool,
    private_tmp: bool,
    sandbox: str,
) -> dict[str, Any]:
    """Returns what the supervisor is told with each task; empty for none.

    Raises:
        ConfinementError: The host lacks something.
    """
    root = os.geteuid() == 0
    if hardened:
        no_new_privileges = True
        private_tmp = private_tmp or root
        user = user or (DEFAULT_USER if root else "")
    told: dict[str, Any] = {}
    if user:
        _check_user(user, data_dir, root=root)
        told["user"] = user
    if user or no_new_privileges:
        told["setpriv"] = _program("setpriv", "util-linux")
    if (sandbox == "bubblewrap" or private_tmp) and data_dir.is_relative_to(_TMP):
        raise ConfinementError(
            f"tasks get a /tmp of their own, which would hide --data-dir {data_dir}; choose another"
        )
    if sandbox == "bubblewrap":
        told["bubblewrap"] = _program("bwrap", "bubblewrap")
        told["hidden"] = str(data_dir)
    elif private_tmp:
        if not root:
            raise ConfinementError(
                "--private-tmp needs an agent that runs as root, or --sandbox bubblewrap;"
                " without it TMPDIR is the task's own"
            )
        told["unshare"] = _program("unshare", "util-linux")
    return told


def open_the_way(data_dir: Path, user: str) -> None:
    """Lets a user go through the agent's folder to its tasks' folders, and have the caches."""
    cache = data_dir / CACHE
    cache.mkdir(mode=0o700, exist_ok=True)
    if user:
        for folder in (data_dir, data_dir / "spool"):
            folder.chmod(0o711)
        found = pwd.getpwnam(user)
        os.chown(cache, found.pw_uid, found.pw_gid)


def _check_user(user: str, data_dir: Path, *, root: bool) -> None:
    if not root:
        raise ConfinementError("--task-user needs an agent that runs as root")
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ConfinementError(f"--task-user: there is no user {user!r} on this host") from None
    if uid == 0:
        raise ConfinementError("--task-user: root is whom tasks are not to be")
    for parent in data_dir.parents:
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            raise ConfinementError(
                f"{user} cannot enter {parent}; choose a --data-dir such as /var/lib/muster-agent"
            )


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ConfinementError(f"there is no {name} on this host; it is in the package {package}")
    return path
