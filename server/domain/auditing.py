"""Which commands are audited, and what is told of each.

Every command of a caller is in `RULES`. What agents report and what happens by itself is in events.
Values of variables and secrets are never told, only their names.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from server.domain.approving import AnswerApproval
from server.domain.audit import AuditEntry, Origin
from server.domain.canceling import CancelTask, StopPipeline
from server.domain.configuring import ConfigureAgent
from server.domain.controlling import SetAgentState
from server.domain.defining import CreatePipeline, DeletePipeline, UpdatePipeline
from server.domain.delivering import CreateHook, DeleteHook, Redeliver, RotateHook
from server.domain.errors import MusterError
from server.domain.extending import AddJobs
from server.domain.granting_uploads import CreateUploadGrant
from server.domain.handing_in import DeleteArtifact
from server.domain.keeping_secrets import DeleteSecret, PutSecret
from server.domain.ledger import Command, Ledger
from server.domain.moment import Moment
from server.domain.publishing import PublishPlugin, YankPlugin
from server.domain.registering import Register, RevokeAgent, Unregister, UpdateLabels
from server.domain.retrying import RetryRun
from server.domain.scheduling import (
    CreateSchedule,
    DeleteSchedule,
    PauseSchedule,
    RunSchedule,
    UpdateSchedule,
)
from server.domain.submitting import CreateTask, DeleteTask, RetryTask, UpdateTask
from server.domain.submitting_many import CreateTasks
from server.domain.task import Task, TaskSpec
from server.domain.tokens import CreateToken, RevokeToken
from server.domain.triggering import TriggerPipeline

Facts = Mapping[str, Any]
Look = Callable[[Ledger, Any], Facts]

IDS_TOLD = 10
TEXT_TOLD = 500


@dataclass(frozen=True, slots=True)
class Rule:
    """How one type of command is told."""

    action: str
    subject: Callable[[Any, Any], str]
    """Makes of a command and its answer the id of what was changed."""
    look: Look = lambda _ledger, _command: {}
    """Tells how that stands; asked before and after."""
    done: Callable[[Any, Any], Facts] = lambda _command, _answer: {}
    """Tells of a command and its answer what cannot be looked at."""


@dataclass(frozen=True, slots=True)
class NoteChange:
    """Tell of a change that was made somewhere else, such as in an outside store."""

    action: str
    subject: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        ledger.edits += 1


class Witness:
    """Sees how things stand before a command, and tells what it has changed."""

    def __init__(self, command: Command[Any], origin: Origin | None, ledger: Ledger) -> None:
        self._command = command
        self._origin = origin
        self._rule = RULES.get(type(command)) if origin is not None else None
        self._edits = ledger.edits
        self._before = self._look(ledger)

    def tell(self, ledger: Ledger, answer: object) -> None:
        """Add an entry, if anything was changed."""
        if self._rule is None or self._origin is None or ledger.edits == self._edits:
            return
        before, after = self._before, self._look(ledger)
        same = {name for name in before if name in after and before[name] == after[name]}
        origin, command = self._origin, self._command
        ledger.add_audit(
            AuditEntry(
                ledger.source.new_key(),
                origin.namespace,
                ledger.now,
                getattr(command, "action", "") if isinstance(command, NoteChange)
                else self._rule.action,
                self._rule.subject(command, answer)[:128],
                origin.caller,
                origin.kind,
                origin.credential,
                origin.peer,
                origin.request_id,
                origin.method,
                {name: value for name, value in before.items() if name not in same},
                {**{name: value for name, value in after.items() if name not in same},
                 **self._rule.done(command, answer)},
            )
        )  # fmt: skip

    def _look(self, ledger: Ledger) -> Facts:
        if self._rule is None:
            return {}
        try:
            return self._rule.look(ledger, self._command)
        except MusterError:
            return {}  # the command says so itself


def _task(ledger: Ledger, command: Any) -> Facts:  # noqa: ANN401 (several commands)
    task: Task | None = ledger.find_task(command.task_id)
    if task is None or command.namespace not in (None, task.namespace):
        return {}
    spec = TaskSpec.from_json(task.spec)
    return {
        "name": task.name,
        "status": task.status.name,
        "timeout": task.timeout,
        "commands": "\n".join(spec.commands)[:TEXT_TOLD],
        "env": sorted(spec.env),
        "cancel_requested": task.cancel_requested_at is not None,
    }


def _agent(ledger: Ledger, command: Any) -> Facts:  # noqa: ANN401 (several commands)
    agent = ledger.find_agent(command.agent_id)
    if agent is None or getattr(command, "namespace", agent.namespace) != agent.namespace:
        return {}
    return {
        "session": agent.session_state.value,
        "labels": agent.effective_labels,
        "scheduling": agent.scheduling.value,
        "note": agent.note,
        "settings": dict(agent.config),
        "slots": agent.slots,
    }


def _token(ledger: Ledger, command: RevokeToken) -> Facts:
    token = ledger.source.token(command.public_id)
    if token is None:
        return {}
    return {"name": token.name, "kind": token.kind.value, "revoked_at": token.revoked_at}


def _new_token(command: CreateToken, _answer: object) -> Facts:
    expires: Moment | None = command.expires_at
    return {
        "name": command.name,
        "kind": command.kind.value,
        "role": command.role.value if command.role else "",
        "where": command.namespace,
        "labels": dict(command.labels),
        "uses": command.uses,
        "expires_at": expires,
    }


def _secret(ledger: Ledger, command: Any) -> Facts:  # noqa: ANN401 (two commands)
    kept = ledger.source.secret(command.namespace, command.name)
    return {} if kept is None else {"version": kept.version, "key": kept.kek}


def _plugin(ledger: Ledger, command: YankPlugin) -> Facts:
    known = ledger.source.plugin(command.namespace, command.plugin_id, command.version)
    return {} if known is None else {"yanked": known.yanked}


def _of_task(command: Any, _answer: object) -> str:  # noqa: ANN401 (several commands)
    return str(command.task_id)


def _of_agent(command: Any, _answer: object) -> str:  # noqa: ANN401 (several commands)
    return str(command.agent_id)


def _of_pipeline(command: Any, _answer: object) -> str:  # noqa: ANN401 (two commands)
    return str(command.pipeline_id)


def _pipeline(ledger: Ledger, command: Any) -> Facts:  # noqa: ANN401 (two commands)
    pipeline = ledger.pipeline(command.namespace, command.pipeline_id)
    return {
        "name": pipeline.name,
        "version": pipeline.version,
        "description": pipeline.description[:TEXT_TOLD],
        "cron": pipeline.cron,
    }


def _of_hook(command: Any, _answer: object) -> str:  # noqa: ANN401 (several commands)
    return str(command.hook_id)


def _hook(ledger: Ledger, command: Any) -> Facts:  # noqa: ANN401 (several commands)
    hook = ledger.hook(command.namespace, command.hook_id)
    return {
        "kind": hook.kind.value,
        "secret": hook.secret,
        "previous_secret": hook.previous_secret,
    }


def _of_schedule(command: Any, _answer: object) -> str:  # noqa: ANN401 (several commands)
    return str(command.schedule_id)


def _schedule(ledger: Ledger, command: Any) -> Facts:  # noqa: ANN401 (several commands)
    schedule = ledger.schedule(command.namespace, command.schedule_id)
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "zone": schedule.zone,
        "overlap": schedule.overlap.value,
        "paused": schedule.paused_at is not None,
        "note": schedule.note,
    }


def _named(command: Any, _answer: object) -> str:  # noqa: ANN401 (two commands)
    return str(command.name)


def _answered(_command: object, answer: Any) -> str:  # noqa: ANN401 (several answers)
    if isinstance(answer, list | tuple):
        return str(answer[0]) if answer else ""
    return str(answer)


RULES: Mapping[type[Command[Any]], Rule] = {
    CreateTask: Rule("task.create", _answered, done=lambda command, _: {"name": command.task.name}),
    CreateTasks: Rule(
        "task.create_many",
        _answered,
        done=lambda _, ids: {"tasks": len(ids), "first": list(ids[:IDS_TOLD])},
    ),
    UpdateTask: Rule("task.update", _of_task, _task),
    DeleteTask: Rule("task.delete", _of_task, _task),
    CancelTask: Rule(
        "task.cancel", _of_task, _task, done=lambda command, _: {"reason": command.reason}
    ),
    RetryTask: Rule("task.retry", _answered, done=lambda command, _: {"retry_of": command.task_id}),
    CreatePipeline: Rule(
        "pipeline.create", _answered, done=lambda command, _: {"name": command.pipeline.name}
    ),
    RetryRun: Rule("run.retry", _answered, done=lambda command, _: {"retry_of": command.run_id}),
    AnswerApproval: Rule(
        "run.approval",
        lambda command, _: command.run_id,
        done=lambda command, task_id: {
            "task": task_id,
            "approved": command.approve,
            "comment": command.comment,
        },
    ),
    AddJobs: Rule(
        "run.add_jobs", lambda command, _: command.run_id, done=lambda _, ids: {"jobs": len(ids)}
    ),
    UpdatePipeline: Rule("pipeline.update", _of_pipeline, _pipeline),
    DeletePipeline: Rule("pipeline.delete", _of_pipeline, _pipeline),
    TriggerPipeline: Rule(
        "pipeline.trigger", _answered, done=lambda command, _: {"pipeline": command.pipeline_id}
    ),
    StopPipeline: Rule(
        "pipeline.stop",
        lambda command, _: command.run_id or command.pipeline_id,
        done=lambda command, _: {"reason": command.reason},
    ),
    CreateHook: Rule(
        "hook.create",
        _answered,
        done=lambda command, _: {"pipeline": command.pipeline_id, "kind": command.kind.value},
    ),
    RotateHook: Rule("hook.rotate", _of_hook, _hook),
    DeleteHook: Rule("hook.delete", _of_hook, _hook),
    Redeliver: Rule(
        "hook.redeliver", _answered, done=lambda command, _: {"redelivers": command.delivery_id}
    ),
    CreateSchedule: Rule(
        "schedule.create",
        _answered,
        done=lambda command, _: {"name": command.name, "pipeline": command.pipeline_id},
    ),
    UpdateSchedule: Rule("schedule.update", _of_schedule, _schedule),
    DeleteSchedule: Rule("schedule.delete", _of_schedule, _schedule),
    PauseSchedule: Rule("schedule.pause", _of_schedule, _schedule),
    RunSchedule: Rule("schedule.run", _of_schedule, done=lambda _, run_id: {"run": run_id}),
    Register: Rule("agent.register", _of_agent, _agent),
    Unregister: Rule("agent.unregister", _of_agent, _agent),
    UpdateLabels: Rule("agent.labels", _of_agent, _agent),
    SetAgentState: Rule("agent.state", _of_agent, _agent),
    ConfigureAgent: Rule("agent.configure", _of_agent, _agent),
    RevokeAgent: Rule(
        "agent.revoke", _of_agent, _agent, done=lambda command, _: {"reason": command.reason}
    ),
    CreateToken: Rule("token.create", lambda command, _: command.public_id, done=_new_token),
    RevokeToken: Rule("token.revoke", lambda command, _: command.public_id, _token),
    PutSecret: Rule("secret.put", _named, _secret),
    DeleteSecret: Rule("secret.delete", _named, _secret),
    PublishPlugin: Rule(
        "plugin.publish",
        lambda command, _: command.plugin.name,
        done=lambda command, _: {
            "sha256": command.plugin.sha256,
            "signed_by": command.plugin.signed_by,
        },
    ),
    YankPlugin: Rule(
        "plugin.yank", lambda command, _: f"{command.plugin_id}@{command.version}", _plugin
    ),
    DeleteArtifact: Rule("artifact.delete", lambda command, _: command.public_id),
    CreateUploadGrant: Rule(
        "artifact.grant",
        lambda command, _: command.public_id,
        done=lambda command, _: {
            "caller": command.caller,
            "prefix": command.prefix,
            "max_bytes": command.max_bytes,
        },
    ),
    NoteChange: Rule("", lambda command, _: command.subject),
}
