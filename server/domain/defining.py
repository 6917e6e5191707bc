"""Pipelines are stored, changed and deleted; each definition they have had is kept."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.canceling import stop_run
from server.domain.checks import Checks
from server.domain.errors import AlreadyExists, WrongState
from server.domain.event import Event, EventKind
from server.domain.following import check_links, link
from server.domain.ledger import Ledger
from server.domain.pipeline import Definition, Pipeline, PipelineVersion, check_definition
from server.domain.schedule import Plan
from server.domain.scheduling import set_pipeline_schedules

DESCRIPTION_LIMIT = 16_384


@dataclass(frozen=True, slots=True)
class Description:
    """A pipeline as its author writes it."""

    name: str
    definition: Definition
    description: str = ""
    trigger_type: int = 1
    cron: str = ""
    source: str = ""
    """The file that the definition was read from, or empty."""
    schedules: tuple[Plan, ...] = ()
    """When it starts by itself."""

    def check(self) -> None:
        """Check every field, by its path in CreatePipelineRequest.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        checks.name("name", self.name)
        checks.text("description", self.description, DESCRIPTION_LIMIT)
        checks.text("repo_url", self.definition.repo_url, 2048)
        checks.name("branch", self.definition.branch)
        checks.name("cron", self.cron, required=False)
        check_definition(checks, self.definition)
        checks.done()

    def check_schedules(self, ledger: Ledger) -> None:
        """See that its schedules can be read and strike.

        Raises:
            Invalid: one does not.
        """
        checks = Checks()
        for plan in self.schedules:
            plan.check(checks, ledger.times, ledger.now)
        checks.done()


@dataclass(frozen=True, slots=True)
class CreatePipeline:
    """Store a new pipeline; answers its id."""

    namespace: str
    pipeline_id: str
    pipeline: Description
    created_by: str = ""

    def check(self) -> None:
        """Check every field, by its path in CreatePipelineRequest.

        Raises:
            Invalid: a field is malformed.
        """
        self.pipeline.check()
        checks = Checks()
        checks.name("created_by", self.created_by, required=False)
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        wanted = self.pipeline
        known = ledger.pipeline_named(self.namespace, wanted.name)
        if known is not None:
            if known.public_id == self.pipeline_id:  # a retry after a lost answer
                return known.public_id
            raise AlreadyExists("pipeline", wanted.name)
        wanted.check_schedules(ledger)
        check_links(ledger, self.namespace, wanted.name, wanted.definition)
        pipeline = Pipeline(
            key=ledger.source.new_key(),
            namespace=self.namespace,
            public_id=self.pipeline_id,
            name=wanted.name,
            definition=wanted.definition.to_json(),
            created_at=ledger.now,
            updated_at=ledger.now,
            description=wanted.description,
            trigger_type=wanted.trigger_type,
            cron=wanted.cron,
            created_by=self.created_by,
        )
        ledger.add_pipeline(pipeline)
        _add_version(ledger, pipeline, wanted.source, self.created_by)
        link(ledger, pipeline, wanted.definition)
        set_pipeline_schedules(ledger, pipeline, wanted.schedules)
        _tell(ledger, EventKind.PIPELINE_CREATED, pipeline)
        return self.pipeline_id


@dataclass(frozen=True, slots=True)
class UpdatePipeline:
    """Give a pipeline another definition; answers the version's number.

    Runs go on by the version they were started with. A definition that is the same makes no new
    version.
    """

    namespace: str
    pipeline_id: str
    pipeline: Description
    updated_by: str = ""
    expected_version: int = 0
    """Refuse when the pipeline has another version now; 0 for any."""

    def check(self) -> None:
        """Check every field, by its path in CreatePipelineRequest.

        Raises:
            Invalid: a field is malformed.
        """
        self.pipeline.check()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> int:
        """See Command."""
        pipeline = ledger.pipeline(self.namespace, self.pipeline_id)
        wanted = self.pipeline
        definition = wanted.definition.to_json()
        wanted.check_schedules(ledger)
        if self._is_so_already(ledger, pipeline, definition):
            return pipeline.version
        if self.expected_version not in (0, pipeline.version):
            reason = f"has version {pipeline.version} now, not {self.expected_version}"
            raise WrongState("pipeline", pipeline.public_id, reason)
        other = ledger.pipeline_named(self.namespace, wanted.name)
        if other is not None and other.key != pipeline.key:
            raise AlreadyExists("pipeline", wanted.name)
        check_links(ledger, self.namespace, wanted.name, wanted.definition, pipeline.name)
        changed = definition != pipeline.definition
        pipeline.name, pipeline.definition = wanted.name, definition
        pipeline.description, pipeline.cron = wanted.description, wanted.cron
        pipeline.trigger_type = wanted.trigger_type
        pipeline.updated_at = ledger.now
        if changed or wanted.source:
            pipeline.version += 1
            _add_version(ledger, pipeline, wanted.source, self.updated_by)
        ledger.touch_pipeline(pipeline)
        link(ledger, pipeline, wanted.definition)
        set_pipeline_schedules(ledger, pipeline, wanted.schedules)
        _tell(ledger, EventKind.PIPELINE_UPDATED, pipeline)
        return pipeline.version

    def _is_so_already(self, ledger: Ledger, pipeline: Pipeline, definition: str) -> bool:
        wanted = self.pipeline
        if (
            pipeline.name,
            pipeline.definition,
            pipeline.description,
            pipeline.cron,
            pipeline.trigger_type,
        ) != (wanted.name, definition, wanted.description, wanted.cron, wanted.trigger_type):
            return False
        return ledger.version(pipeline, pipeline.version).source == wanted.source


@dataclass(frozen=True, slots=True)
class DeletePipeline:
    """Delete a pipeline; answers how many runs were stopped.

    Its row and its runs stay to be looked at until they are old; its name is free at once.
    """

    namespace: str
    pipeline_id: str
    stop_runs: bool = False
    """Stop active runs; otherwise they are a reason to refuse."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> int:
        """See Command."""
        pipeline = ledger.pipeline(self.namespace, self.pipeline_id)
        runs = ledger.active_runs(pipeline)
        if runs and not self.stop_runs:
            numbers = ", ".join(str(run.number) for run in runs[:5])
            more = ", …" if runs[5:] else ""
            reason = f"has active runs ({numbers}{more}); stop them, or set stop_runs"
            raise WrongState("pipeline", pipeline.public_id, reason)
        for run in runs:
            stop_run(ledger, run, "the pipeline was deleted")
        _tell(ledger, EventKind.PIPELINE_DELETED, pipeline)
        pipeline.deleted_at = pipeline.updated_at = ledger.now
        pipeline.name = f"{pipeline.name} (deleted {pipeline.public_id})"
        ledger.touch_pipeline(pipeline)
        link(ledger, pipeline, None)
        set_pipeline_schedules(ledger, pipeline, ())
        return len(runs)


def _add_version(ledger: Ledger, pipeline: Pipeline, source: str, author: str) -> None:
    ledger.add_version(
        PipelineVersion(
            pipeline.key,
            pipeline.version,
            pipeline.namespace,
            pipeline.definition,
            source,
            ledger.now,
            author,
        )
    )


def _tell(ledger: Ledger, kind: EventKind, pipeline: Pipeline) -> None:
    ledger.tell(
        Event(
            kind,
            pipeline.namespace,
            ledger.now,
            pipeline.public_id,
            pipeline_id=pipeline.public_id,
            data={"name": pipeline.name, "version": pipeline.version},
        )
    )
