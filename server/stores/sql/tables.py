"""The tables, named like the records they keep; a test holds the two together.

Every table of callers' things carries `namespace`; counters and task classes belong to nobody.
Moments are Unix milliseconds. Indexes that serve a loop hold only the rows that loop looks for: the
claim's index has ready tasks and nothing else.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

# SQLite makes a column the row's own id only when its type is exactly INTEGER.
Key = BigInteger().with_variant(Integer(), "sqlite")
Moment = BigInteger
PublicId = String(128)

sequences = Table(
    "sequences",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("next", BigInteger, nullable=False),
)

identity = Table(
    "identity",
    metadata,
    Column("database_id", String(32), primary_key=True),
)

task_classes = Table(
    "task_classes",
    metadata,
    Column("class_key", String(32), primary_key=True),
    Column("canonical", Text, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("session_id", PublicId, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("registered_at", Moment, nullable=False),
    Column("last_seen", Moment, nullable=False),
    Column("session_state", String(8), nullable=False),
    Column("hostname", Text, nullable=False),
    Column("ip", Text, nullable=False),
    Column("os", Text, nullable=False),
    Column("arch", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("v1", Boolean, nullable=False),
    Column("lease", BigInteger, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("overlay", JSON, nullable=False),
    Column("plugins", JSON, nullable=False),
    Column("scheduling", String(8), nullable=False),
    Column("note", Text, nullable=False),
    Column("scheduling_since", Moment),
    Column("drain_until", Moment),
    Column("faults", Integer, nullable=False),
    Column("fault", Text, nullable=False),
    Column("faulted_at", Moment),
    Column("quarantined_at", Moment),
    Column("quarantined_until", Moment),
    Column("control", Integer, nullable=False),
    Column("due_at", Moment),
    Column("config", JSON, nullable=False),
    Column("measured", JSON, nullable=False),
    Column("locked", JSON, nullable=False),
    Column("confined", Boolean, nullable=False),
)
_AGENT_DUE = text("due_at IS NOT NULL")
Index("ix_agents_due", agents.c.due_at, sqlite_where=_AGENT_DUE, postgresql_where=_AGENT_DUE)

pipelines = Table(
    "pipelines",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("description", Text, nullable=False),
    Column("trigger_type", SmallInteger, nullable=False),
    Column("cron", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("runs", Integer, nullable=False),
    Column("last_status", SmallInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("deleted_at", Moment),
    UniqueConstraint("namespace", "name"),
)

pipeline_versions = Table(
    "pipeline_versions",
    metadata,
    Column("pipeline_key", ForeignKey("pipelines.key"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("definition", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False),
)

pipeline_links = Table(
    "pipeline_links",
    metadata,
    Column("pipeline_key", ForeignKey("pipelines.key"), primary_key=True),
    Column("after_name", String(256), primary_key=True),
    Column("namespace", String(63), nullable=False),
    Index("ix_pipeline_links_after", "namespace", "after_name"),
)

runs = Table(
    "runs",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("pipeline_key", ForeignKey("pipelines.key"), nullable=False),
    Column("pipeline_id", PublicId, nullable=False),
    Column("number", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("total", Integer, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("branch", Text, nullable=False),
    Column("commit_sha", Text, nullable=False),
    Column("triggered_by", Text, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("ended", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("excused", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("stop_requested_at", Moment),
    Column("stages", JSON, nullable=False),
    Column("running", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("facts", Text, nullable=False),
    Column("retry_of", PublicId),
    Column("left_out", Integer, nullable=False),
    Column("group_key", String(128)),
    Column("turn", Key),
    Column("schedule_key", Key),
    Index("ix_runs_pipeline", "pipeline_key", "key"),
)
_ACTIVE = text("finished_at IS NULL")
Index("ix_runs_active", runs.c.key, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)
_ACTIVE_IN_GROUP = text("group_key IS NOT NULL AND finished_at IS NULL")
Index(
    "ix_runs_group",
    runs.c.namespace,
    runs.c.group_key,
    runs.c.key,
    sqlite_where=_ACTIVE_IN_GROUP,
    postgresql_where=_ACTIVE_IN_GROUP,
)

_ACTIVE_OF_SCHEDULE = text("schedule_key IS NOT NULL AND finished_at IS NULL")
Index(
    "ix_runs_schedule",
    runs.c.schedule_key,
    sqlite_where=_ACTIVE_OF_SCHEDULE,
    postgresql_where=_ACTIVE_OF_SCHEDULE,
)

schedules = Table(
    "schedules",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("pipeline_key", ForeignKey("pipelines.key"), nullable=False),
    Column("pipeline_id", PublicId, nullable=False),
    Column("owner", String(8), nullable=False),
    Column("cron", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("jitter", Integer, nullable=False),
    Column("starts_at", Moment),
    Column("ends_at", Moment),
    Column("catch_up", String(8), nullable=False),
    Column("catch_up_window", Integer, nullable=False),
    Column("catch_up_limit", Integer, nullable=False),
    Column("overlap", String(16), nullable=False),
    Column("branch", Text, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("next_at", Moment),
    Column("due_at", Moment),
    Column("pending_at", Moment),
    Column("last_at", Moment),
    Column("paused_at", Moment),
    Column("note", Text, nullable=False),
    UniqueConstraint("namespace", "name"),
    Index("ix_schedules_pipeline", "pipeline_key"),
)
_SCHEDULE_DUE = text("due_at IS NOT NULL")
Index(
    "ix_schedules_due",
    schedules.c.due_at,
    sqlite_where=_SCHEDULE_DUE,
    postgresql_where=_SCHEDULE_DUE,
)

schedule_fires = Table(
    "schedule_fires",
    metadata,
    Column("schedule_key", ForeignKey("schedules.key", ondelete="CASCADE"), primary_key=True),
    Column("at", Moment, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("struck_at", Moment, nullable=False),
    Column("run_id", PublicId),
    Column("outcome", Text, nullable=False),
    Index("ix_schedule_fires_struck", "struck_at"),
)

hooks = Table(
    "hooks",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("pipeline_key", ForeignKey("pipelines.key"), nullable=False),
    Column("pipeline_id", PublicId, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("secret", String(128), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("previous_secret", String(128), nullable=False),
    Column("header", String(64), nullable=False),
    Column("created_by", Text, nullable=False),
    UniqueConstraint("pipeline_key", "kind", "header"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("hook_key", ForeignKey("hooks.key", ondelete="CASCADE"), nullable=False),
    Column("pipeline_id", PublicId, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("forge_id", String(128), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("event", String(128), nullable=False),
    Column("size", Integer, nullable=False),
    Column("body", LargeBinary),
    Column("blob", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("run_ids", JSON, nullable=False),
    Column("due_at", Moment),
    Column("finished_at", Moment),
    Column("redelivers", PublicId),
    Index("ix_deliveries_pipeline", "namespace", "pipeline_id", "key"),
)
_DELIVERY_DUE = text("due_at IS NOT NULL")
Index(
    "ix_deliveries_due",
    deliveries.c.due_at,
    sqlite_where=_DELIVERY_DUE,
    postgresql_where=_DELIVERY_DUE,
)
_DELIVERY_NAMED = text("forge_id <> ''")
Index(
    "ix_deliveries_named",
    deliveries.c.hook_key,
    deliveries.c.forge_id,
    unique=True,
    sqlite_where=_DELIVERY_NAMED,
    postgresql_where=_DELIVERY_NAMED,
)
_DELIVERY_ALIKE = text("digest <> ''")
Index(
    "ix_deliveries_alike",
    deliveries.c.hook_key,
    deliveries.c.digest,
    sqlite_where=_DELIVERY_ALIKE,
    postgresql_where=_DELIVERY_ALIKE,
)

gates = Table(
    "gates",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("run_key", ForeignKey("runs.key", ondelete="CASCADE"), nullable=False),
    Column("unmet", Integer, nullable=False),
    Column("spoiled", Text, nullable=False),
    Index("ix_gates_run", "run_key"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("class_key", String(32), nullable=False),
    Column("sort_key", BigInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("timeout", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("pipeline_id", PublicId),
    Column("run_key", ForeignKey("runs.key")),
    Column("run_id", PublicId),
    Column("stage", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("retry_limit", Integer, nullable=False),
    Column("allow_failure", Boolean, nullable=False),
    Column("retry_on_lost", Boolean, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("schedule_to_start", BigInteger, nullable=False),
    Column("start_by", Moment),
    Column("group_key", String(128)),
    Column("cancels_older", Boolean, nullable=False),
    Column("unmet", Integer, nullable=False),
    Column("not_before", Moment),
    Column("attempt", Integer, nullable=False),
    Column("failed_attempts", Integer, nullable=False),
    Column("infra_retries", Integer, nullable=False),
    Column("lease_epoch", Integer, nullable=False),
    Column("lease_agent", ForeignKey("agents.key")),
    Column("lease_session", PublicId),
    Column("lease_frame", BigInteger, nullable=False),
    Column("lease_request", PublicId),
    Column("last_agent", Key),
    Column("last_agent_id", PublicId),
    Column("claimed_at", Moment),
    Column("confirm_by", Moment),
    Column("deadline", Moment),
    Column("avoid_agent", Key),
    Column("avoid_until", Moment),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("cancel_requested_at", Moment),
    Column("cancel_reason", Text, nullable=False),
    Column("release_requested_at", Moment),
    Column("exit_code", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("retry_of", PublicId),
    Column("due_at", Moment),
    Column("ready_at", Moment),
    Column("rules", Text, nullable=False),
    Column("judged", SmallInteger, nullable=False),
    Column("gate", Key),
    Column("opens", Key),
    Column("outputs", Text, nullable=False),
)
_BEHIND = text("gate IS NOT NULL")
Index("ix_tasks_gate", tasks.c.gate, sqlite_where=_BEHIND, postgresql_where=_BEHIND)
_READY = text("status = 2 AND lease_agent IS NULL")
_LEASED = text("lease_agent IS NOT NULL")
_DUE = text("due_at IS NOT NULL")
_ENDED = text("finished_at IS NOT NULL")
_IN_RUN = text("run_key IS NOT NULL")
_IN_GROUP = text("group_key IS NOT NULL")
_IN_PIPELINE = text("pipeline_id IS NOT NULL")
Index(
    "ix_tasks_ready",
    tasks.c.class_key,
    tasks.c.namespace,
    tasks.c.sort_key,
    tasks.c.key,
    sqlite_where=_READY,
    postgresql_where=_READY,
)
Index("ix_tasks_leased", tasks.c.lease_agent, sqlite_where=_LEASED, postgresql_where=_LEASED)
Index("ix_tasks_due", tasks.c.due_at, sqlite_where=_DUE, postgresql_where=_DUE)
Index("ix_tasks_finished", tasks.c.finished_at, sqlite_where=_ENDED, postgresql_where=_ENDED)
Index("ix_tasks_run", tasks.c.run_key, sqlite_where=_IN_RUN, postgresql_where=_IN_RUN)
Index(
    "ix_tasks_group",
    tasks.c.namespace,
    tasks.c.group_key,
    tasks.c.status,
    tasks.c.sort_key,
    tasks.c.key,
    sqlite_where=_IN_GROUP,
    postgresql_where=_IN_GROUP,
)
Index(
    "ix_tasks_pipeline",
    tasks.c.pipeline_id,
    sqlite_where=_IN_PIPELINE,
    postgresql_where=_IN_PIPELINE,
)

groups = Table(
    "concurrency_groups",
    metadata,
    Column("namespace", String(63), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("places", Integer, nullable=False),
)

dependencies = Table(
    "dependencies",
    metadata,
    Column("depends_on", ForeignKey("tasks.key", ondelete="CASCADE"), primary_key=True),
    Column("task_key", ForeignKey("tasks.key", ondelete="CASCADE"), primary_key=True),
    Column("namespace", String(63), nullable=False),
    Index("ix_dependencies_task", "task_key"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("task_key", ForeignKey("tasks.key", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("agent_key", Key, nullable=False),
    Column("agent_id", PublicId, nullable=False),
    Column("session", PublicId, nullable=False),
    Column("claimed_at", Moment, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("exit_code", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    Column("reported", Boolean, nullable=False),
    Column("log_lines", BigInteger, nullable=False),
    Column("log_bytes", BigInteger, nullable=False),
    Column("log_crc", BigInteger, nullable=False),
    Column("log_at", Moment),
    Column("log_state", SmallInteger, nullable=False),
    Column("sum_lines", BigInteger),
    Column("sum_bytes", BigInteger),
    Column("sum_crc", BigInteger),
    Column("log_due", Moment),
)
_LOG_DUE = text("log_due IS NOT NULL")
Index("ix_attempts_log_due", attempts.c.log_due, sqlite_where=_LOG_DUE, postgresql_where=_LOG_DUE)

logs = Table(
    "logs",
    metadata,
    Column("task_key", ForeignKey("tasks.key", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("first_line", BigInteger, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("lines", Integer, nullable=False),
    Column("text_bytes", BigInteger, nullable=False),
    Column("crc", BigInteger, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("encoding", SmallInteger, nullable=False),
    Column("plain_bytes", Integer, nullable=False),
    Column("data", LargeBinary),
    Column("data_crc", BigInteger, nullable=False),
    Column("blob", String(128)),
    Column("blob_offset", BigInteger, nullable=False),
    Column("blob_size", Integer, nullable=False),
)
_IN_BLOB = text("blob IS NOT NULL")
Index("ix_logs_blob", logs.c.blob, sqlite_where=_IN_BLOB, postgresql_where=_IN_BLOB)

log_chores = Table(
    "log_chores",
    metadata,
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("task_key", ForeignKey("tasks.key", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("due", Moment, nullable=False),
    Column("batch", String(64)),
    Index("ix_log_chores_due", "kind", "due"),
    Index("ix_log_chores_batch", "batch"),
    Index("ix_log_chores_task", "task_key"),
)

requests = Table(
    "requests",
    metadata,
    Column("namespace", String(63), primary_key=True),
    Column("caller", PublicId, primary_key=True),
    Column("request_id", PublicId, primary_key=True),
    Column("body_hash", String(64), nullable=False),
    Column("answer", JSON, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index("ix_requests_expires", "expires_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("at", Moment, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", PublicId, nullable=False),
    Column("caller", PublicId, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("credential", PublicId, nullable=False),
    Column("peer", Text, nullable=False),
    Column("request_id", PublicId, nullable=False),
    Column("method", String(128), nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Index("ix_audit_namespace", "namespace", "key"),
    Index("ix_audit_at", "at"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("name", String(128), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("updated_by", PublicId, nullable=False),
    Column("kek", String(64), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("namespace", "name", name="uq_secrets_name"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("blob", Text, nullable=False),
    Column("part_size", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("task_id", PublicId, nullable=False),
    Column("task_name", Text, nullable=False),
    Column("run_id", PublicId, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lease_id", String(256), nullable=False),
    Column("grant_id", PublicId, nullable=False),
    Column("handed_in_by", PublicId, nullable=False),
    Column("upload", Text, nullable=False),
    Column("stored_at", Moment),
    Column("expire_at", Moment),
    Column("due_at", Moment),
    Column("deleted", Boolean, nullable=False),
    Index("ix_artifacts_task", "task_id", "attempt"),
    Index("ix_artifacts_run", "run_id"),
    Index("ix_artifacts_grant", "grant_id"),
    Index("ix_artifacts_namespace", "namespace", "key"),
)
_ARTIFACT_DUE = text("due_at IS NOT NULL")
Index(
    "ix_artifacts_due",
    artifacts.c.due_at,
    sqlite_where=_ARTIFACT_DUE,
    postgresql_where=_ARTIFACT_DUE,
)

plugins = Table(
    "plugins",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("plugin_id", String(63), nullable=False),
    Column("version", String(64), nullable=False),
    Column("type", String(16), nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("about", JSON, nullable=False),
    Column("signature", Text, nullable=False),
    Column("signed_by", String(16), nullable=False),
    Column("published_at", Moment, nullable=False),
    Column("published_by", PublicId, nullable=False),
    Column("yanked", Text, nullable=False),
    Column("bundled", Boolean, nullable=False),
    UniqueConstraint("namespace", "plugin_id", "version", name="uq_plugins_version"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("namespace", String(63), nullable=False),
    Column("public_id", PublicId, nullable=False, unique=True),
    Column("kind", String(8), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", String(8)),
    Column("subject", PublicId, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("created_by", PublicId, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("uses_left", Integer),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("used_at", Moment),
    Index("ix_tokens_namespace", "namespace", "key"),
    Index("ix_tokens_subject", "subject"),
)

events = Table(
    "events",
    metadata,
    Column("position", Key, primary_key=True, autoincrement=True),
    Column("namespace", String(63), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("at", Moment, nullable=False),
    Column("resource_id", PublicId, nullable=False),
    Column("run_id", PublicId),
    Column("pipeline_id", PublicId),
    Column("data", JSON, nullable=False),
    sqlite_autoincrement=True,
)
