"""Cleans up after a supervisor that died: ends what it had started, marks its attempts lost."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import UnionType

from agent.spool import EXIT, TASK, AttemptFolder, Spool, folder_name
from agent.supervisor import processes
from agent.supervisor.frames import Message

_OF_A_TASK: dict[str, type | UnionType] = {
    "lease": str,
    "task": str,
    "attempt": int,
    "kill_grace": int | float,
    "stop_with_lease": bool,
}
_OF_A_PROCESS = {"pid": int, "start": int, "boot": str, "started_at": int}
_OF_AN_END = {
    "cause": str,
    "exit_code": int,
    "message": str,
    "failure": str,
    "started_at": int,
    "ended_at": int,
}
_OF_AN_ARTIFACT = {
    "name": str,
    "path": str,
    "destination": str,
    "on_failure": bool,
    "expire_days": int,
}
"""What task.json and exit.json say."""

_SHORT = ("attempt", "exit_code")
"""Numbers of 32 bits."""

LOST = "the agent's supervisor died while the task ran"


def recover(spool: Spool) -> dict[str, Message]:
    """Ends every survivor and returns the state of each attempt in the spool, by lease."""
    for trash in spool.trash():
        trash.remove()
    folders = spool.folders()
    tasks = {folder.path: task for folder in folders if (task := _task(folder))}
    nobodys = [folder for folder in folders if folder.path not in tasks]
    lost = [path for path in tasks if _end(AttemptFolder(path)) is None]
    if lost or nobodys:
        _end_survivors(
            [tasks[path] for path in lost], [*lost, *(folder.path for folder in nobodys)]
        )
    for folder in nobodys:
        folder.remove()
    for path in lost:
        # On a full disk it stays in memory; a successor would come to the same end.
        with contextlib.suppress(OSError):
            AttemptFolder(path).write(EXIT, _lost_end(tasks[path]))
    return {task["lease"]: _state(AttemptFolder(path), task) for path, task in tasks.items()}


def _task(folder: AttemptFolder) -> Message | None:
    """Returns whose folder it is; None when it is being deleted, or its task made it nobody's."""
    task = folder.read(TASK)
    if task is None or not _fits(task, _OF_A_TASK):
        return None
    if "pid" in task and not _fits(task, _OF_A_PROCESS):
        return None
    return task if folder_name(task["lease"]) == folder.path.name else None


def _end(folder: AttemptFolder) -> Message | None:
    end = folder.read(EXIT)
    return end if end is not None and _fits(end, _OF_AN_END) else None


def _fits(value: Message, kinds: Mapping[str, type | UnionType]) -> bool:
    """Tells whether it has all that the session will look for; the task may have written it."""
    return all(
        isinstance(value.get(name), kind) and _is_sound(name, value[name])
        for name, kind in kinds.items()
    )


def _is_sound(name: str, value: str | float) -> bool:
    """Tells whether the control plane's protocol can carry it."""
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return 0 <= value < (1 << 31 if name in _SHORT else 1 << 53)


def _end_survivors(tasks: list[Message], folders: list[Path]) -> None:
    kill_at = time.monotonic() + min(
        max((float(task["kill_grace"]) for task in tasks), default=0.0), 2.0
    )
    boot = processes.boot_id()

    def claims(process: processes.Process) -> bool:
        return any(
            process.bears(f"{task['task']}/{task['attempt']}") or _named(process, task, boot)
            for task in tasks
        ) or any(process.works_in(folder) for folder in folders)

    def find() -> set[processes.Process]:
        living = processes.everything()
        return processes.subtree(filter(claims, living.values()), living)

    processes.end_all(find, lambda: kill_at)


def _named(process: processes.Process, task: Message, boot: str) -> bool:
    """Tells whether the spool names the process, or the session it leads."""
    pid = task.get("pid")
    if pid is None or task["boot"] != boot:
        return False
    if process.pid == pid:
        return process.start == int(task["start"])
    return process.session == pid and process.start >= int(task["start"])


def _lost_end(task: Message) -> Message:
    return {
        "cause": "lost",
        "exit_code": 0,
        "message": LOST,
        "failure": "infrastructure",
        "ended_at": time.time_ns() // 1_000_000,
        "started_at": task.get("started_at", 0),
    }


def _state(folder: AttemptFolder, task: Message) -> Message:
    keep = ("lease", "task", "attempt", "kill_grace", "stop_with_lease")
    return {
        **{name: task[name] for name in keep},
        **_for_later(task),
        "started_at": task.get("started_at", 0),
        "running": False,
        "end": _end(folder) or _lost_end(task),
    }


def _for_later(task: Message) -> Message:
    """Returns what a later session has to know, as far as that is sound."""
    artifacts, shown = task.get("artifacts"), task.get("shown")
    found: Message = {}
    if isinstance(artifacts, list):
        found["artifacts"] = [
            each for each in artifacts if isinstance(each, dict) and _fits(each, _OF_AN_ARTIFACT)
        ]
    if isinstance(shown, list):
        found["shown"] = [each for each in shown if isinstance(each, str) and _is_sound("", each)]
    found["keep_workspace"] = task.get("keep_workspace") is True
    return {name: value for name, value in found.items() if value}
