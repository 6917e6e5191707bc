"""What goes to an agent with its tasks, and is told to nobody else."""

from collections.abc import Iterable

from generated.agent.v1 import agent_pb2
from server.domain.claiming import Assignment
from server.domain.policy import Policy
from server.issuer import Issuer
from server.rpc.convert_agent import task_message

TASK_TOKEN = "MUSTER_TOKEN"  # noqa: S105 (the variable's name)


class Handover:
    """Makes messages of tasks that were leased to an agent."""

    def __init__(self, policy: Policy, issuer: Issuer | None) -> None:
        self._policy = policy
        self._issuer = issuer

    def messages(self, assignments: Iterable[Assignment], agent_id: str) -> list[agent_pb2.Task]:
        """Return the tasks as their agent gets them; each with its key, where callers show one."""
        return [self._message(assignment, agent_id) for assignment in assignments]

    def _message(self, assignment: Assignment, agent_id: str) -> agent_pb2.Task:
        message = task_message(assignment, self._policy)
        if self._issuer is not None:
            key = self._issuer.task_key(assignment, agent_id)
            # As a secret: it is neither written to the agent's disk nor shown in the log.
            message.secrets[TASK_TOKEN] = key
        return message
