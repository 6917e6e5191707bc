"""The access table: every RPC and route, and the permissions of which a caller needs one.

What is missing here is closed to everybody; a test sees that nothing is missing. Which of the
things behind a door are the caller's own, its handler decides.
"""

from collections.abc import Mapping

from server.domain.access import ANYBODY, Permission

_KNOWN = frozenset(Permission)
"""Anybody who shows something that counts."""

_ADMINISTER = frozenset({Permission.ADMINISTER})
_VIEW = frozenset({Permission.VIEW})
_OPERATE = frozenset({Permission.OPERATE})
_SERVE = frozenset({Permission.SERVE})
_ENROL = frozenset({Permission.ENROL, Permission.SERVE})
_ATTEND = frozenset({Permission.ATTEND})
_HAND_IN = frozenset({Permission.SERVE, Permission.ATTEND, Permission.UPLOAD})
_MEASURE = frozenset({Permission.MEASURE})

RPCS: Mapping[str, frozenset[Permission]] = {
    # What an agent says for itself.
    "/agent.v1.AgentService/Register": _ENROL,
    "/agent.v1.AgentService/Heartbeat": _SERVE,
    "/agent.v1.AgentService/Unregister": _SERVE,
    "/agent.v1.AgentService/FetchTask": _SERVE,
    "/agent.v1.AgentService/ReportTaskStatus": _SERVE,
    "/agent.v1.AgentService/ReportTaskLog": _SERVE,
    "/agent.v1.AgentService/DownloadPlugin": _SERVE | _VIEW,
    "/agent.v1.AgentService/ListAvailablePlugins": _SERVE | _VIEW,
    "/agent.v1.AgentService/FetchPlugin": _SERVE | _VIEW,
    "/stream.v1.StreamService/AgentChannel": _SERVE,
    "/stream.v1.StreamService/UploadTaskLog": _SERVE,
    # What is said about agents.
    "/agent.v1.AgentService/CancelTask": _OPERATE | _SERVE,
    "/agent.v1.AgentService/UpdateLabels": _OPERATE | _SERVE,
    "/agent.v1.AgentService/ListAgents": _VIEW,
    "/agent.v1.AgentService/GetAgent": _VIEW,
    "/agent.v1.AgentService/SetAgentState": _OPERATE,
    "/agent.v1.AgentService/RevokeAgent": _ADMINISTER,
    "/agent.v1.AgentService/ConfigureAgent": _OPERATE,
    # Who may call.
    "/auth.v1.AuthService/WhoAmI": _KNOWN,
    "/auth.v1.AuthService/GetLogin": ANYBODY,
    "/auth.v1.AuthService/LogIn": ANYBODY,
    "/auth.v1.AuthService/CreateToken": _ADMINISTER,
    "/auth.v1.AuthService/ListTokens": _ADMINISTER,
    "/auth.v1.AuthService/RevokeToken": _ADMINISTER,
    # Who changed what.
    "/audit.v1.AuditService/ListAudit": _ADMINISTER,
    # Secrets.
    "/secret.v1.SecretService/PutSecret": _ADMINISTER,
    "/secret.v1.SecretService/ListSecrets": _OPERATE,
    "/secret.v1.SecretService/DeleteSecret": _ADMINISTER,
    # Tasks.
    "/task.v1.TaskService/Ping": ANYBODY,
    "/task.v1.TaskService/CreateTask": _OPERATE,
    "/task.v1.TaskService/CreateTasks": _OPERATE,
    "/task.v1.TaskService/GetTask": _VIEW | _ATTEND,
    "/task.v1.TaskService/ExplainTask": _VIEW,
    "/task.v1.TaskService/ListTasks": _VIEW,
    "/task.v1.TaskService/UpdateTask": _OPERATE,
    "/task.v1.TaskService/DeleteTask": _OPERATE,
    "/task.v1.TaskService/CancelTask": _OPERATE,
    "/task.v1.TaskService/RetryTask": _OPERATE,
    "/task.v1.TaskService/GetTaskLog": _VIEW,
    "/task.v1.TaskService/ListTaskArtifacts": _VIEW | _ATTEND,
    # Pipelines and their runs.
    "/pipeline.v1.PipelineService/Ping": ANYBODY,
    "/pipeline.v1.PipelineService/CreatePipeline": _OPERATE,
    "/pipeline.v1.PipelineService/UpdatePipeline": _OPERATE,
    "/pipeline.v1.PipelineService/DeletePipeline": _OPERATE,
    "/pipeline.v1.PipelineService/ListPipelineVersions": _VIEW,
    "/pipeline.v1.PipelineService/GetPipeline": _VIEW,
    "/pipeline.v1.PipelineService/ListPipelines": _VIEW,
    "/pipeline.v1.PipelineService/TriggerPipeline": _OPERATE,
    "/pipeline.v1.PipelineService/StopPipeline": _OPERATE,
    "/pipeline.v1.PipelineService/GetRun": _VIEW | _ATTEND,
    "/pipeline.v1.PipelineService/ListRuns": _VIEW,
    "/pipeline.v1.PipelineService/RetryRun": _OPERATE,
    "/pipeline.v1.PipelineService/ApproveRun": _VIEW,
    "/pipeline.v1.PipelineService/RejectRun": _VIEW,
    "/pipeline.v1.PipelineService/AddJobs": _OPERATE | _ATTEND,
    # Who may call for pipelines over HTTP.
    "/hook.v1.HookService/CreateHook": _OPERATE,
    "/hook.v1.HookService/ListHooks": _VIEW,
    "/hook.v1.HookService/RotateHook": _OPERATE,
    "/hook.v1.HookService/DeleteHook": _OPERATE,
    "/hook.v1.HookService/ListDeliveries": _VIEW,
    "/hook.v1.HookService/GetDelivery": _OPERATE,
    "/hook.v1.HookService/Redeliver": _OPERATE,
    # When pipelines start by themselves.
    "/schedule.v1.ScheduleService/CreateSchedule": _OPERATE,
    "/schedule.v1.ScheduleService/UpdateSchedule": _OPERATE,
    "/schedule.v1.ScheduleService/DeleteSchedule": _OPERATE,
    "/schedule.v1.ScheduleService/GetSchedule": _VIEW,
    "/schedule.v1.ScheduleService/ListSchedules": _VIEW,
    "/schedule.v1.ScheduleService/PauseSchedule": _OPERATE,
    "/schedule.v1.ScheduleService/ResumeSchedule": _OPERATE,
    "/schedule.v1.ScheduleService/RunSchedule": _OPERATE,
    "/schedule.v1.ScheduleService/PreviewSchedule": _VIEW,
    # Plugins.
    "/catalog.v1.CatalogService/PublishPlugin": _OPERATE,
    "/catalog.v1.CatalogService/YankPlugin": _OPERATE,
    "/catalog.v1.CatalogService/ListPlugins": _VIEW,
    "/catalog.v1.CatalogService/GetPlugin": _VIEW,
    # Artifacts.
    "/artifact.v1.ArtifactService/BeginUpload": _HAND_IN,
    "/artifact.v1.ArtifactService/SignParts": _HAND_IN,
    "/artifact.v1.ArtifactService/BorrowCredentials": _HAND_IN,
    "/artifact.v1.ArtifactService/CompleteUpload": _HAND_IN,
    "/artifact.v1.ArtifactService/AbortUpload": _HAND_IN,
    "/artifact.v1.ArtifactService/ListArtifacts": _VIEW | _ATTEND,
    "/artifact.v1.ArtifactService/GetArtifact": _VIEW | _ATTEND,
    "/artifact.v1.ArtifactService/DeleteArtifact": _OPERATE,
    "/artifact.v1.ArtifactService/CreateUploadGrant": _OPERATE,
    "/artifact.v1.ArtifactService/ListUploadGrants": _OPERATE,
    "/artifact.v1.ArtifactService/RevokeUploadGrant": _OPERATE,
    # What goes on.
    "/stream.v1.StreamService/Ping": ANYBODY,
    "/stream.v1.StreamService/StreamTaskLog": _VIEW,
    "/stream.v1.StreamService/StreamTaskStatus": _VIEW,
    "/stream.v1.StreamService/StreamPipelineStatus": _VIEW,
    "/stream.v1.StreamService/StreamAgentStatus": _VIEW,
    "/stream.v1.StreamService/StreamEvents": _VIEW,
}

ROUTES: Mapping[str, frozenset[Permission]] = {
    "GET /": ANYBODY,
    "GET /livez": ANYBODY,
    "GET /readyz": ANYBODY,
    "GET /metrics": _MEASURE,
    # Each call is signed; who knows a hook's secret may call.
    "POST /hooks/{pipeline}": ANYBODY,
    "GET /schema/pipeline.json": ANYBODY,
    # Each call shows an upload grant.
    "POST /uploads": ANYBODY,
    "POST /uploads/credentials": ANYBODY,
    "POST /uploads/{artifact}/parts": ANYBODY,
    "POST /uploads/{artifact}/complete": ANYBODY,
    # What may be done the path says itself, by a signature.
    "PUT /artifacts/parts/{token}": ANYBODY,
    "GET /artifacts/files/{token}": ANYBODY,
}
