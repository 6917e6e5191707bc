"""What goes to an agent with its tasks, and is told to nobody else."""

from collections.abc import Sequence

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from generated.agent.v1 import agent_pb2
from server.auth import Caller
from server.domain.claiming import Assignment, HandBack
from server.domain.errors import MusterError, StoreUnavailable
from server.domain.lease import LeaseRef
from server.domain.policy import Policy
from server.domain.reporting import Report
from server.domain.task import TaskSpec, TaskStatus
from server.engine.writer import Writer
from server.issuer import Issuer
from server.rpc.convert_agent import task_message
from server.sealing import Sealer, SealingError
from server.secret_store import SecretStore

TASK_TOKEN = "MUSTER_TOKEN"  # noqa: S105 (the variable's name)
PATIENCE = 5.0
"""Seconds that a store may take to give a task's secrets before the task goes back to the queue."""

LOCAL = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")

log = structlog.get_logger(__name__)


class CannotHandOver(Exception):  # noqa: N818 (it is the task's failure)
    """A task cannot be given its secrets, now or ever; the message says why."""


class Handover:
    """Gives tasks that were leased to an agent what they need, and makes messages of them."""

    def __init__(
        self,
        policy: Policy,
        issuer: Issuer | None = None,
        secrets: SecretStore | None = None,
        sealer: Sealer | None = None,
        writer: Writer | None = None,
        *,
        encrypted: bool = False,
    ) -> None:
        self._policy = policy
        self._issuer = issuer
        self._secrets = secrets
        self._sealer = sealer
        self._writer = writer
        self._encrypted = encrypted

    async def messages(
        self, assignments: Sequence[Assignment], agent_id: str, caller: Caller
    ) -> list[agent_pb2.Task]:
        """Return the tasks as their agent gets them.

        One that cannot be given its secrets is missing: it has failed, or is queued again.
        """
        found = [await self._message(each, agent_id, caller) for each in assignments]
        return [message for message in found if message is not None]

    async def _message(
        self, assignment: Assignment, agent_id: str, caller: Caller
    ) -> agent_pb2.Task | None:
        message = task_message(assignment, self._policy)
        if '"sealed":' in assignment.spec or '"secret_refs":' in assignment.spec:
            try:
                message.secrets.update(await self._values(assignment, caller))
            except CannotHandOver as error:
                await self._give_up(assignment, agent_id, str(error))
                return None
            except MusterError as error:
                await self._put_back(assignment, agent_id, error)
                return None
        if self._issuer is not None:
            # As a secret: it is neither written to the agent's disk nor shown in the log.
            message.secrets[TASK_TOKEN] = self._issuer.task_key(assignment, agent_id)
        return message

    async def _values(self, assignment: Assignment, caller: Caller) -> dict[str, str]:
        """Return the secrets of a task by the names of its variables.

        Raises:
            CannotHandOver: one is gone or cannot be read, or the connection would give them away.
            StoreUnavailable: the store does not answer.
        """
        spec = TaskSpec.from_json(assignment.spec)
        if not spec.sealed and not spec.secret_refs:
            return {}
        if not self._encrypted and not caller.peer.startswith(LOCAL):
            raise CannotHandOver(
                "its secrets go over TLS only, and its agent's connection has none"
            )
        found = self._opened(spec.sealed, assignment.namespace) if spec.sealed else {}
        if not spec.secret_refs:
            return found
        known = await self._known(assignment.namespace, sorted(set(spec.secret_refs.values())))
        for variable, name in spec.secret_refs.items():
            if name not in known:
                raise CannotHandOver(f"there is no secret {name!r} (any more)")
            found[variable] = known[name]
        return found

    def _opened(self, sealed: str, namespace: str) -> dict[str, str]:
        if self._sealer is None:
            raise CannotHandOver("the server has no key for its secrets")
        try:
            return self._sealer.open_all(sealed, namespace)
        except SealingError as error:
            raise CannotHandOver(str(error)) from None

    async def _known(self, namespace: str, names: list[str]) -> dict[str, str]:
        if self._secrets is None:
            raise CannotHandOver("the server keeps no secrets")
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_exponential(multiplier=0.1, max=1),
            stop=stop_after_delay(PATIENCE),
            reraise=True,
        ):
            with attempt:
                return await self._secrets.values(namespace, names)
        raise AssertionError("tenacity ends with an answer or an error")

    async def _give_up(self, assignment: Assignment, agent_id: str, reason: str) -> None:
        log.warning("a task cannot start", task_id=assignment.task_id, reason=reason)
        ref = LeaseRef(assignment.task_id, assignment.lease_id)
        await self._say(
            Report(agent_id, ref, TaskStatus.FAILED, error=f"could not start: {reason}")
        )

    async def _put_back(self, assignment: Assignment, agent_id: str, error: MusterError) -> None:
        log.warning("a task is queued again", task_id=assignment.task_id, reason=str(error))
        ref = LeaseRef(assignment.task_id, assignment.lease_id)
        await self._say(HandBack(agent_id, (ref,)))

    async def _say(self, command: Report | HandBack) -> None:
        if self._writer is not None:
            await self._writer.submit(command)
