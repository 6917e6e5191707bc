"""What a task needs before it can start: its plugins, and files of earlier jobs."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.allowing import AllowLists
from agent.plugin_cache import PluginRefused, PluginUnavailable
from agent.spool import folder_name
from generated.agent.v1 import agent_pb2
from plugins.package.manifest import MANIFEST, parse_manifest
from plugins.package.refusal import PackageRefused

CONTAINER = "container"
"""The plugin that runs a task's commands in its image."""

STAGING = "staging"
"""Name of the folder, in the agent's own, where files of earlier jobs arrive."""


class CannotPrepare(Exception):  # noqa: N818 (it is the task's failure)
    """A task cannot be started; the message says why.

    Attributes:
        elsewhere: Whether another agent, or a later moment, may do better.
    """

    def __init__(self, message: str, *, elsewhere: bool) -> None:
        super().__init__(message)
        self.elsewhere = elsewhere


@dataclass(frozen=True)
class Prepared:
    """What the supervisor is told besides the task itself.

    Attributes:
        plan: What the plugin host is to do, as JSON; empty runs the commands.
        staged: The folder whose contents go into the workspace, or empty.
        shown: Folders of the agent's that the task has to see.
    """

    plan: str = ""
    staged: str = ""
    shown: tuple[str, ...] = ()

    def words(self) -> dict[str, Any]:
        """Returns it as an order carries it, without what is empty."""
        told = {"plan": self.plan, "staged": self.staged, "shown": list(self.shown)}
        return {name: value for name, value in told.items() if value}


class Plugins(Protocol):
    """See `agent.plugin_cache.PluginCache`."""

    async def take(self, lease: str, infos: Sequence[agent_pb2.PluginInfo]) -> Mapping[str, Path]:
        """Returns the folder of each plugin by its reference; held until `release`."""

    def hold(self, lease: str, folders: Iterable[str]) -> None:
        """Holds what a task of an earlier session uses."""

    def release(self, lease: str) -> None:
        """Lets go of what a lease holds."""


class Inputs(Protocol):
    """See `agent.artifacts.fetching.Fetcher`."""

    async def fetch(self, inputs: Sequence[agent_pb2.ArtifactInput], folder: Path) -> None:
        """Brings files of earlier jobs into a folder.

        Raises:
            CannotPrepare: It cannot.
        """


def needs_preparation(task: agent_pb2.Task) -> bool:
    """Tells whether a task needs more than what came with it."""
    return bool(task.steps or task.plugins or task.inputs or task.image)


class Preparer:
    """Gets what tasks need."""

    def __init__(
        self,
        data_dir: Path,
        plugins: Plugins,
        bundled: Mapping[str, Path],
        inputs: Inputs | None = None,
        allowed: AllowLists | None = None,
    ) -> None:
        self._allowed = allowed or AllowLists()
        self._staging = data_dir / STAGING
        self._plugins = plugins
        self._inputs = inputs
        self._bundled = bundled

    def clear(self) -> None:
        """Deletes what an earlier session has left half done."""
        shutil.rmtree(self._staging, ignore_errors=True)

    async def prepare(self, task: agent_pb2.Task) -> Prepared:
        """Gets all that a task needs; `release` lets go of it.

        Raises:
            CannotPrepare: It cannot be had.
        """
        try:
            folders = await self._plugins.take(task.lease_id, list(task.plugins))
        except PluginRefused as error:
            raise CannotPrepare(str(error), elsewhere=False) from error
        except PluginUnavailable as error:
            raise CannotPrepare(str(error), elsewhere=True) from error
        try:
            plan = self._plan(task, folders)
            staged = await self._staged(task) if task.inputs else ""
        except BaseException:
            self.release(task.lease_id)
            raise
        shown = tuple(sorted({str(folder) for folder in folders.values()}))
        return Prepared(json.dumps(plan) if plan else "", staged, shown)

    def hold(self, lease: str, folders: Iterable[str]) -> None:
        """Holds what a task of an earlier session uses."""
        self._plugins.hold(lease, folders)

    def release(self, lease: str) -> None:
        """Lets go of what a task needed."""
        self._plugins.release(lease)
        # It is there only if its task did not start: else it lies in the workspace by now.
        shutil.rmtree(self._staging_of(lease), ignore_errors=True)

    def _staging_of(self, lease: str) -> Path:
        return self._staging / folder_name(lease)

    async def _staged(self, task: agent_pb2.Task) -> str:
        if self._inputs is None:
            raise CannotPrepare("this agent cannot fetch files of earlier jobs", elsewhere=True)
        folder = self._staging_of(task.lease_id)
        try:
            folder.mkdir(mode=0o700, parents=True)
            await self._inputs.fetch(list(task.inputs), folder)
        except OSError as error:
            raise CannotPrepare(f"files of earlier jobs: {error}", elsewhere=True) from error
        return str(folder)

    def _plan(self, task: agent_pb2.Task, folders: Mapping[str, Path]) -> dict[str, Any]:
        """Returns what the plugin host is to do; nothing where the shell does.

        Raises:
            CannotPrepare: A plugin is missing.
        """
        steps = [self._step(step, folders, task) for step in task.steps]
        if task.commands and (steps or task.image):
            last = agent_pb2.Step(name=task.name, commands=task.commands)
            steps.append(self._step(last, folders, task))
        return {"steps": steps, "kill_grace": task.kill_grace} if steps else {}

    def _step(
        self, step: agent_pb2.Step, folders: Mapping[str, Path], task: agent_pb2.Task
    ) -> dict[str, Any]:
        if task.image and not step.uses:
            return self._in_container(task, step)
        told: dict[str, Any] = {
            "name": step.name,
            "commands": list(step.commands),
            "uses": step.uses,
        }
        if step.uses:
            folder = folders.get(step.uses) or self._bundled.get(step.uses.partition("@")[0])
            if folder is None:
                raise CannotPrepare(
                    f"the control plane did not say where the plugin {step.uses} is",
                    elsewhere=False,
                )
            self._check_permissions(step.uses, folder)
            told["settings"] = json.loads(step.settings or "{}")
            told["folder"] = str(folder)
        return told

    def _check_permissions(self, reference: str, folder: Path) -> None:
        """Compares what a plugin asks for with what this host allows.

        Raises:
            CannotPrepare: It asks for more, or does not say in a way that can be read.
        """
        try:
            asked = parse_manifest((folder / MANIFEST).read_bytes()).permissions
        except (OSError, PackageRefused) as error:
            raise CannotPrepare(f"plugin {reference}: {error}", elsewhere=False) from error
        if refused := self._allowed.refused_permission(asked):
            raise CannotPrepare(
                f"this agent's host does not allow it: the plugin {reference} asks for"
                f" {refused!r}, which is not in its permissions",
                elsewhere=False,
            )

    def _in_container(self, task: agent_pb2.Task, step: agent_pb2.Step) -> dict[str, Any]:
        folder = self._bundled.get(CONTAINER)
        if folder is None:
            raise CannotPrepare(
                f"this agent cannot run container images ({task.image})", elsewhere=False
            )
        self._check_permissions(CONTAINER, folder)
        passed = sorted({*task.env, *task.secrets})
        return {
            "name": step.name,
            "commands": [],
            "uses": CONTAINER,
            "settings": {"image": task.image, "commands": list(step.commands), "env": passed},
            "folder": str(folder),
        }
