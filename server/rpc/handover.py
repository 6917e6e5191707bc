"""What goes to an agent with its tasks, and is told to nobody else."""

import asyncio
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TypeAlias

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from generated.agent.v1 import agent_pb2
from server.auth import Caller
from server.domain.artifact import Artifact
from server.domain.claiming import Assignment, HandBack
from server.domain.errors import SecretsRefused, StoreUnavailable
from server.domain.lease import LeaseRef
from server.domain.plugin import PublishedPlugin, Reference, pick, why_none
from server.domain.policy import Policy
from server.domain.reporting import Report
from server.domain.task import TaskSpec, TaskStatus
from server.engine.artifacts import Artifacts
from server.engine.catalog import Catalog
from server.engine.writer import Writer
from server.issuer import Issuer
from server.rpc.convert_agent import task_message
from server.rpc.convert_plugin import plugin_info
from server.sealing import Sealer, SealingError
from server.secret_store import SecretStore

TASK_TOKEN = "MUSTER_TOKEN"  # noqa: S105 (the variable's name)
PATIENCE = 5.0
"""Seconds that a store may take to give tasks' secrets before the tasks go back to the queue."""

CHECKOUT = "git-checkout"
"""The plugin that brings a run's repository into the workspace."""

GIT_TOKEN = "GIT_TOKEN"  # noqa: S105 (the variable's name)
INPUT_URL_SECONDS = 3600

NO_KEY = "the server has no key for its secrets"
LOCAL = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")

log = structlog.get_logger(__name__)


class CannotHandOver(Exception):  # noqa: N818 (it is the task's failure)
    """A task cannot be given its secrets, now or ever; the message says why."""


Known: TypeAlias = Mapping[str, Mapping[str, str] | StoreUnavailable | CannotHandOver]
"""By namespace the values of its secrets, or why there are none."""


class Handover:
    """Gives tasks that were leased to an agent what they need, and makes messages of them."""

    def __init__(
        self,
        policy: Policy,
        writer: Writer,
        issuer: Issuer | None = None,
        secrets: SecretStore | None = None,
        sealer: Sealer | None = None,
        catalog: Catalog | None = None,
        artifacts: Artifacts | None = None,
        *,
        encrypted: bool = False,
    ) -> None:
        self._catalog = catalog
        self._artifacts = artifacts
        self._policy = policy
        self._writer = writer
        self._issuer = issuer
        self._secrets = secrets
        self._sealer = sealer
        self._encrypted = encrypted

    async def messages(
        self, assignments: Sequence[Assignment], agent_id: str, caller: Caller
    ) -> list[agent_pb2.Task]:
        """Return the tasks as their agent gets them.

        One that cannot be given its secrets is missing: it has failed, or is queued again.
        """
        safe = self._encrypted or caller.peer.startswith(LOCAL)
        specs = [TaskSpec.from_json(each.spec) for each in assignments]
        known = await self._known(assignments, specs) if safe else {}
        more = any(spec.wants_plugins for spec in specs)
        plugins = await self._plugins(assignments, specs) if more else {}
        files = await self._files(assignments, specs) if more else {}
        messages, failed, back = [], [], []
        for assignment, spec in zip(assignments, specs, strict=True):
            message = task_message(assignment, spec, self._policy)
            try:
                if spec.sealed or spec.secret_refs:
                    values = self._values(assignment.namespace, spec, known, safe=safe)
                    message.secrets.update(values)
                if spec.checkout:
                    settings = json.dumps(checkout_of(spec, message.secrets))
                    message.steps.add(name="checkout", uses=CHECKOUT, settings=settings)
                if spec.steps or spec.checkout:
                    await self._add_steps(message, spec, plugins[assignment.namespace])
                if spec.inputs:
                    await self._add_inputs(message, spec, files[assignment.run_id])
            except CannotHandOver as error:
                failed.append(_failure(assignment, agent_id, error))
            except StoreUnavailable as error:
                back.append(_returned(assignment, error))
            else:
                if self._issuer is not None:
                    # As a secret: it is neither written to the agent's disk nor shown in the log.
                    message.secrets[TASK_TOKEN] = self._issuer.task_key(assignment, agent_id)
                messages.append(message)
        # What is refused here changes nothing: an agent that never lists a lease does not keep it.
        handed_back = [HandBack(agent_id, tuple(back))] if back else []
        await self._writer.submit_each([*failed, *handed_back])
        return messages

    async def _plugins(
        self, assignments: Iterable[Assignment], specs: Iterable[TaskSpec]
    ) -> Mapping[str, Sequence[PublishedPlugin] | StoreUnavailable]:
        """Return by namespace what is known of the plugins that tasks use."""
        wanted: dict[str, set[str]] = {}
        for assignment, spec in zip(assignments, specs, strict=True):
            names = {step["uses"].partition("@")[0] for step in spec.steps}
            if spec.checkout:
                names.add(CHECKOUT)
            if names:
                wanted.setdefault(assignment.namespace, set()).update(filter(None, names))
        found: dict[str, Sequence[PublishedPlugin] | StoreUnavailable] = {}
        for namespace, ids in wanted.items():
            try:
                known = await self._catalog.known(namespace, ids) if self._catalog else []
                found[namespace] = known
            except StoreUnavailable as error:
                found[namespace] = error
        return found

    async def _add_steps(
        self,
        message: agent_pb2.Task,
        spec: TaskSpec,
        known: Sequence[PublishedPlugin] | StoreUnavailable,
    ) -> None:
        """Say what a task's steps are, and where its plugins are.

        Raises:
            CannotHandOver: there is no such plugin.
            StoreUnavailable: nobody can say now.
        """
        if isinstance(known, StoreUnavailable):
            raise known
        if self._catalog is None:
            raise CannotHandOver("the server keeps no plugins")
        for step in spec.steps:
            message.steps.add(
                name=step["name"],
                commands=step["commands"],
                uses=step["uses"],
                settings=json.dumps(step["settings"]) if step["uses"] else "",
            )
        named = set()
        for uses in (step.uses for step in message.steps):
            if not uses or uses in named:
                continue
            named.add(uses)
            wanted = Reference.parse(uses)
            plugin = pick(wanted, known) if wanted else None
            if wanted is None or plugin is None:
                reason = why_none(wanted, uses, known) if wanted else f"{uses!r} names no plugin"
                raise CannotHandOver(reason)
            url = await self._catalog.url(plugin)
            message.plugins.append(plugin_info(plugin, self._catalog.home.kind, url, uses))

    async def _files(
        self, assignments: Iterable[Assignment], specs: Iterable[TaskSpec]
    ) -> dict[str, Sequence[Artifact] | StoreUnavailable]:
        """Return by run the files that its jobs have left, where tasks take some."""
        found: dict[str, Sequence[Artifact] | StoreUnavailable] = {}
        for assignment, spec in zip(assignments, specs, strict=True):
            run_id = assignment.run_id
            if spec.inputs and run_id not in found and self._artifacts is not None:
                try:
                    found[run_id] = await self._artifacts.of_run(assignment.namespace, run_id)
                except StoreUnavailable as error:
                    found[run_id] = error
        return found

    async def _add_inputs(
        self,
        message: agent_pb2.Task,
        spec: TaskSpec,
        known: Sequence[Artifact] | StoreUnavailable,
    ) -> None:
        """Say which files of earlier jobs the task starts with.

        Raises:
            CannotHandOver: a job has left none of them.
            StoreUnavailable: nobody can say now.
        """
        if isinstance(known, StoreUnavailable):
            raise known
        if self._artifacts is None:
            raise CannotHandOver("the server keeps no artifacts")
        for use in spec.inputs:
            found = [
                each for each in known if each.is_of_job(use.job) and use.name in ("", each.name)
            ]
            if not found:
                what = f"artifact {use.name!r}" if use.name else "artifact"
                raise CannotHandOver(f"job {use.job!r} has left no {what} (any more)")
            for each in found:
                message.inputs.add(
                    artifact_id=each.public_id,
                    path=f"{use.path}/{each.path}" if use.path else each.path,
                    size=each.size,
                    sha256=each.sha256,
                    download_url=await self._artifacts.url(each, INPUT_URL_SECONDS),
                )

    def _values(
        self, namespace: str, spec: TaskSpec, known: Known, *, safe: bool
    ) -> dict[str, str]:
        """Return the secrets of a task by the names of its variables.

        Raises:
            CannotHandOver: one is gone or cannot be read, or the connection would give them away.
            StoreUnavailable: the store does not answer.
        """
        if not safe:
            raise CannotHandOver(
                "its secrets go over TLS only, and its agent's connection has none"
            )
        found = self._opened(spec.sealed, namespace) if spec.sealed else {}
        if not spec.secret_refs:
            return found
        kept = known[namespace]
        if isinstance(kept, Exception):
            raise kept
        for variable, name in spec.secret_refs.items():
            if name not in kept:
                raise CannotHandOver(f"there is no secret {name!r} (any more)")
            found[variable] = kept[name]
        return found

    def _opened(self, sealed: str, namespace: str) -> dict[str, str]:
        if self._sealer is None:
            raise CannotHandOver(NO_KEY)
        try:
            return self._sealer.open_all(sealed, namespace)
        except SealingError as error:
            raise CannotHandOver(str(error)) from None

    async def _known(self, assignments: Iterable[Assignment], specs: Iterable[TaskSpec]) -> Known:
        """Return the secrets that tasks name, each read once however many name it."""
        wanted: dict[str, set[str]] = {}
        for assignment, spec in zip(assignments, specs, strict=True):
            if spec.secret_refs:
                wanted.setdefault(assignment.namespace, set()).update(spec.secret_refs.values())
        found = await asyncio.gather(*(self._read(*each) for each in wanted.items()))
        return dict(zip(wanted, found, strict=True))

    async def _read(
        self, namespace: str, names: Iterable[str]
    ) -> Mapping[str, str] | StoreUnavailable | CannotHandOver:
        if self._secrets is None:
            return CannotHandOver("the server keeps no secrets")
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(StoreUnavailable),
                wait=wait_exponential(multiplier=0.1, max=1),
                stop=stop_after_delay(PATIENCE),
                reraise=True,
            ):
                with attempt:
                    async with asyncio.timeout(PATIENCE):
                        return await self._secrets.values(namespace, sorted(names))
        except SecretsRefused:
            return CannotHandOver(NO_KEY)
        except StoreUnavailable as error:
            return error
        except TimeoutError:
            return StoreUnavailable(f"the secret store takes longer than {PATIENCE:g} s")
        raise AssertionError("tenacity ends with an answer or an error")


def _failure(assignment: Assignment, agent_id: str, error: CannotHandOver) -> Report:
    log.warning("a task cannot start", task_id=assignment.task_id, reason=str(error))
    ref = LeaseRef(assignment.task_id, assignment.lease_id)
    return Report(agent_id, ref, TaskStatus.FAILED, error=f"could not start: {error}")


def _returned(assignment: Assignment, error: StoreUnavailable) -> LeaseRef:
    log.warning("a task is queued again", task_id=assignment.task_id, reason=str(error))
    return LeaseRef(assignment.task_id, assignment.lease_id)


def checkout_of(spec: TaskSpec, secrets: Container[str]) -> dict[str, str]:
    """Return what the checkout is given: a run's own variables say what to check out.

    A job with a secret GIT_TOKEN shows it to the repository.
    """
    named = {"repository": "MUSTER_REPO_URL", "branch": "MUSTER_BRANCH", "commit": "MUSTER_COMMIT"}
    given = {name: spec.env[of] for name, of in named.items() if spec.env.get(of)}
    return {**given, "token": GIT_TOKEN} if GIT_TOKEN in secrets else given
