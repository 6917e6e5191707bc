"""Artifacts come and go: handed in, listed once they are stored, deleted."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.artifact import ABANDONED, COLLECTING, Artifact, Wanted, blob_name
from server.domain.errors import LimitReached, NotFound, WrongState
from server.domain.granting_uploads import place_of
from server.domain.holding import adopt
from server.domain.lease import Standing, standing
from server.domain.ledger import Ledger
from server.domain.moment import DAY
from server.domain.task import Task


@dataclass(frozen=True, slots=True)
class BeginArtifact:
    """Take a file in, or go on with one; answers its row."""

    namespace: str
    public_id: str
    wanted: Wanted
    part_size: int
    quota: int
    """Bytes that the namespace may keep; 0 is no limit."""
    task_id: str = ""
    lease_id: str = ""
    agent_id: str = ""
    grant_id: str = ""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.task_id,) if self.task_id else ()

    def decide(self, ledger: Ledger) -> Artifact:
        """See Command.

        Raises:
            WrongState: the lease is not current, or the grant has ended.
            LimitReached: the quota or the grant's budget is used up.
        """
        new = self._new(ledger)
        wanted = self.wanted
        for known in ledger.source.artifacts_of(new.task_id, new.attempt, new.grant_id):
            if known.deleted or (known.name, known.path) != (new.name, new.path):
                continue
            if (known.size, known.sha256) == (new.size, new.sha256):
                if known.stored_at is None:
                    known.due_at = ledger.now + ABANDONED
                    ledger.touch_artifact(known)
                return known
            if new.task_id:  # the file was changed since; what is new counts
                _drop(ledger, known)
        self._check_room(ledger, new)
        if self.quota:
            used = ledger.source.artifact_bytes(self.namespace)
            if used + wanted.size > self.quota:
                raise LimitReached(
                    f"the namespace keeps {used} bytes of artifacts, and may keep {self.quota}"
                )
        ledger.add_artifact(new)
        return new

    def _new(self, ledger: Ledger) -> Artifact:
        wanted, now = self.wanted, ledger.now
        task_name = run_id = handed_in_by = ""
        attempt = 0
        expire_days = wanted.expire_days
        if self.grant_id:
            grant = ledger.source.token(self.grant_id)
            if grant is None or not grant.counts(now):
                raise WrongState("upload grant", self.grant_id, "has ended")
            handed_in_by = grant.subject
            place = place_of(grant)
            expire_days = int(grant.labels["expire_days"])
        else:
            task = ledger.task(self.namespace, self.task_id)
            if not _holds(ledger, task, self.agent_id, self.lease_id):
                why = "is not held by this lease any more"
                raise WrongState("task", self.task_id, why)
            _give_time(ledger, task)
            task_name, run_id, attempt = task.name, task.run_id or "", task.attempt
            place = wanted.destination or task.public_id
        return Artifact(
            key=ledger.source.new_key(),
            namespace=self.namespace,
            public_id=self.public_id,
            name=wanted.name,
            path=wanted.path,
            size=wanted.size,
            sha256=wanted.sha256,
            blob=blob_name(self.namespace, place, self.public_id, wanted.path),
            part_size=self.part_size,
            created_at=now,
            task_id=self.task_id,
            task_name=task_name,
            run_id=run_id,
            attempt=attempt,
            lease_id=self.lease_id,
            grant_id=self.grant_id,
            handed_in_by=handed_in_by,
            expire_at=now + expire_days * DAY if expire_days else None,
            due_at=now + ABANDONED,
        )

    def _check_room(self, ledger: Ledger, new: Artifact) -> None:
        if not self.grant_id:
            return
        grant = ledger.source.token(self.grant_id)
        most = int(grant.labels["max_bytes"]) if grant is not None else 0
        used = sum(
            each.size
            for each in ledger.source.artifacts_of("", 0, self.grant_id)
            if not each.deleted
        )
        if used + new.size > most:
            raise LimitReached(f"the grant is for {most} bytes, and {used} are used")


def _give_time(ledger: Ledger, task: Task) -> None:
    """Let a task whose files are on their way not run out of time meanwhile."""
    if task.deadline is not None and task.deadline < ledger.now + COLLECTING:
        task.deadline = ledger.now + COLLECTING
        ledger.touch(task)


def _holds(ledger: Ledger, task: Task, agent_id: str, lease_id: str) -> bool:
    """Return whether files come from who holds the task; a lost lease is taken up again."""
    agent = ledger.find_agent(agent_id) if agent_id else None
    if agent is None:  # a running task's own token: who shows it holds the lease
        return task.leased and lease_id == task.lease_id
    how = standing(ledger, task, agent, lease_id)
    if how is Standing.ADOPTABLE:  # its file came sooner than its heartbeat
        adopt(ledger, task, agent)
    return how in (Standing.CURRENT, Standing.ADOPTABLE)


@dataclass(frozen=True, slots=True)
class NoteUpload:
    """Keep the store's name of an upload."""

    public_id: str
    upload: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        known = ledger.source.artifact(self.public_id)
        if known is not None and known.stored_at is None and not known.deleted:
            known.upload = self.upload
            ledger.touch_artifact(known)


@dataclass(frozen=True, slots=True)
class StoreArtifact:
    """Say that a file is stored whole: from here on it is listed; answers it."""

    namespace: str
    public_id: str
    agent_id: str = ""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> Artifact:
        """See Command.

        Raises:
            NotFound: there is none, or it is on its way out.
            WrongState: its task's lease is not current any more.
        """
        known = ledger.source.artifact(self.public_id)
        if known is None or known.namespace != self.namespace or known.deleted:
            raise NotFound("artifact", self.public_id)
        if known.stored_at is not None:
            return known
        if known.task_id:
            task = ledger.find_task(known.task_id)
            if task is None or not _holds(ledger, task, self.agent_id, known.lease_id):
                raise WrongState("task", known.task_id, "is not held by this lease any more")
        known.stored_at = ledger.now
        known.upload = ""
        known.due_at = known.expire_at
        ledger.touch_artifact(known)
        return known


@dataclass(frozen=True, slots=True)
class DeleteArtifact:
    """Let an artifact go; nobody sees it from here on, and its bytes go soon after."""

    namespace: str | None
    public_id: str
    only_unstored: bool = False

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command.

        Raises:
            NotFound: there is none.
            WrongState: it is stored, and only what is not may go.
        """
        known = ledger.source.artifact(self.public_id)
        if known is None or known.deleted or self.namespace not in (None, known.namespace):
            raise NotFound("artifact", self.public_id)
        if self.only_unstored and known.stored_at is not None:
            raise WrongState("artifact", self.public_id, "is stored")
        _drop(ledger, known)


def _drop(ledger: Ledger, artifact: Artifact) -> None:
    artifact.deleted = True
    artifact.due_at = ledger.now
    ledger.touch_artifact(artifact)


@dataclass(frozen=True, slots=True)
class ForgetArtifact:
    """Remove the row of an artifact whose bytes are gone."""

    public_id: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        known = ledger.source.artifact(self.public_id)
        if known is not None and known.deleted:
            ledger.delete_artifact(known)
