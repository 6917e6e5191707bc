"""What this agent can do besides running a shell, told as labels that selectors can ask for."""

import os
import stat
import sys
from pathlib import Path

import structlog

from agent.plugin_cache import PluginCache
from agent.preparing import CONTAINER
from plugins import bundled
from plugins.container import engine

_log = structlog.get_logger("agent.abilities")


def usable() -> dict[str, Path]:
    """Returns where the plugins lie that come with the agent and can run on this host."""
    found = bundled.folders()
    told = {"PATH": os.environ["PATH"]} if "PATH" in os.environ else {}  # what tasks get of it
    if engine.find("", engine.environment(told, ())) is None:
        found.pop(CONTAINER, None)
    return found


class Abilities:
    """See the module."""

    def __init__(self, plugins: PluginCache, task_user: str) -> None:
        self._plugins = plugins
        self._own = [f"{id_}@{each.version}" for id_, each in bundled.manifests().items()]
        self._fixed: dict[str, str] = {}
        if not task_user or _everybody_may_run(Path(sys.executable)):
            self._fixed["runs/plugin"] = "true"
            if CONTAINER in usable():
                self._fixed["runs/container"] = "true"
        else:
            _log.warning(
                "tasks with plugins cannot run here: their user cannot enter where the agent's"
                " Python is",
                python=sys.executable,
                user=task_user,
            )

    def installed(self) -> list[str]:
        """Returns the plugins that are here, as id@version."""
        return sorted({*self._own, *self._plugins.installed()})

    def labels(self, *, plugins: bool = True) -> dict[str, str]:
        """Returns the labels; `plugins` adds those of what is installed."""
        found = dict(self._fixed)
        if plugins:
            found.update(
                (f"plugin/{id_}", version)
                for id_, _, version in (each.partition("@") for each in self.installed())
            )
        return found


def _everybody_may_run(program: Path) -> bool:
    """Tells whether a user without rights can start a program."""
    for path in (program.resolve(), Path(__file__).resolve()):
        for parent in path.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                return False
    return os.access(program, os.X_OK) and bool(program.resolve().stat().st_mode & stat.S_IXOTH)
