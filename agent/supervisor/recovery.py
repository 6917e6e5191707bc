"""Cleans up after a supervisor that died: ends what it had started, marks its attempts lost."""

import contextlib
import time
from pathlib import Path

from agent.spool import EXIT, TASK, AttemptFolder, Spool
from agent.supervisor import processes
from agent.supervisor.frames import Message

LOST = "the agent's supervisor died while the task ran"


def recover(spool: Spool) -> dict[str, Message]:
    """Ends every survivor and returns the state of each attempt in the spool, by lease."""
    for trash in spool.trash():
        trash.remove()
    tasks = {folder.path: task for folder in spool.folders() if (task := _task(folder))}
    lost = [path for path in tasks if AttemptFolder(path).read(EXIT) is None]
    if lost:
        _end_survivors([tasks[path] for path in lost], lost)
    for path in lost:
        # On a full disk it stays in memory; a successor would come to the same end.
        with contextlib.suppress(OSError):
            AttemptFolder(path).write(EXIT, _lost_end(tasks[path]))
    return {task["lease"]: _state(AttemptFolder(path), task) for path, task in tasks.items()}


def _task(folder: AttemptFolder) -> Message | None:
    task = folder.read(TASK)
    if task is None:  # died before it wrote what this was to be, so nothing was started
        folder.remove()
    return task


def _end_survivors(tasks: list[Message], folders: list[Path]) -> None:
    kill_at = time.monotonic() + min(max(float(task["kill_grace"]) for task in tasks), 2.0)
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
        "started_at": task.get("started_at", 0),
        "running": False,
        "end": folder.read(EXIT) or _lost_end(task),
    }
