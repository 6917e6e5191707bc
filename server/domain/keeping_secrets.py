"""Keeping secrets, bringing them under another key, and forgetting them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from server.domain.errors import NotFound
from server.domain.kept_secret import KeptSecret, Sealed
from server.domain.ledger import Ledger
from server.domain.task import TaskSpec


@dataclass(frozen=True, slots=True)
class PutSecret:
    """Keep a sealed value; answers the secret, or None where its version is not the next one.

    A ciphertext is bound to its version, so whoever seals says which it will be.
    """

    namespace: str
    name: str
    version: int
    sealed: Sealed
    by: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> KeptSecret | None:
        """See Command."""
        known = ledger.source.secret(self.namespace, self.name)
        if self.version != (known.version if known is not None else 0) + 1:
            return None
        sealed = self.sealed
        if known is None:
            made = KeptSecret(
                ledger.source.new_key(),
                self.namespace,
                self.name,
                self.version,
                ledger.now,
                ledger.now,
                self.by,
                sealed.kek,
                sealed.wrapped,
                sealed.data,
            )
            ledger.add_secret(made)
            return made
        known.version, known.updated_at, known.updated_by = self.version, ledger.now, self.by
        known.kek, known.wrapped, known.data = sealed.kek, sealed.wrapped, sealed.data
        ledger.touch_secret(known)
        return known


@dataclass(frozen=True, slots=True)
class RewrapSecret:
    """Put a data key under another key-encryption key; answers whether it is the one we knew."""

    namespace: str
    name: str
    before: bytes
    """The data key as it was wrapped."""
    kek: str
    wrapped: bytes

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> bool:
        """See Command."""
        known = ledger.source.secret(self.namespace, self.name)
        if known is None or known.wrapped != self.before:  # no secret: ciphertext
            return False
        known.kek, known.wrapped = self.kek, self.wrapped
        ledger.touch_secret(known)
        return True


@dataclass(frozen=True, slots=True)
class RewrapTask:
    """Put the data key of a task's own secrets under another; answers whether it was the same."""

    task_id: str
    before: str
    """The secrets as they were sealed."""
    sealed: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return (self.task_id,)

    def decide(self, ledger: Ledger) -> bool:
        """See Command."""
        task = ledger.find_task(self.task_id)
        if task is None or task.status.ended:
            return False
        spec = TaskSpec.from_json(task.spec)
        if spec.sealed != self.before:
            return False
        task.spec = replace(spec, sealed=self.sealed).to_json()
        ledger.touch(task)
        return True


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    """Forget a secret."""

    namespace: str
    name: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        known = ledger.source.secret(self.namespace, self.name)
        if known is None:
            raise NotFound("secret", self.name)
        ledger.delete_secret(known)
