"""Explanations of tasks, as messages."""

from generated.task.v1 import task_pb2
from server.domain.task import Task
from server.domain.waiting import Explanation
from server.rpc.convert import enum

AGENT_LIMIT = 100


def explanation_message(task: Task, explanation: Explanation) -> task_pb2.ExplainTaskResponse:
    """Return why a task stands where it stands."""
    crowd = explanation.crowd
    return task_pb2.ExplainTaskResponse(
        success=True,
        message=explanation.sentence,
        status=enum(task.status),
        waiting_for=enum(explanation.waiting_for),
        dependencies=[
            task_pb2.UnmetDependency(task_id=need.task_id, name=need.name, status=enum(need.status))
            for need in explanation.unmet
        ],
        not_before=task.not_before or 0,
        agent_id=task.last_agent_id or "",
        agents=[
            task_pb2.AgentFit(agent_id=each.agent_id, fit=enum(each.fit), reason=each.reason)
            for each in explanation.agents[:AGENT_LIMIT]
        ],
        agent_counts=[
            task_pb2.AgentFitCount(fit=enum(fit), agents=number)
            for fit, number in sorted(explanation.counts.items())
        ],
        free_slots=explanation.free_slots,
        tasks_before=explanation.ahead,
        tasks_of_others=explanation.others,
        places=crowd.places if crowd else 0,
        places_taken=crowd.taken if crowd else 0,
        holders=[
            task_pb2.PlaceHolder(task_id=task_id, name=name)
            for task_id, name in (crowd.holders if crowd else ())
        ],
    )
