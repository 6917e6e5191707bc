"""Many tasks come in at once: all or none."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from server.domain.checks import Checks
from server.domain.dag import find_cycle, in_order
from server.domain.errors import Invalid, NotFound, Violation
from server.domain.ledger import Ledger
from server.domain.submitting import (
    Idempotency,
    NewTask,
    answered_before,
    build_task,
    place_task,
    remember_answer,
)

BATCH_LIMIT = 10_000
KEY_LIMIT = 128


def check_batch(tasks: Iterable[NewTask]) -> None:
    """Check what concerns the tasks together: their keys, and that none waits for itself.

    Raises:
        Invalid: a key is malformed or taken, or tasks wait for each other.
    """
    checks = Checks()
    by_key: dict[str, NewTask] = {}
    for index, task in enumerate(tasks):
        if not task.key:
            continue
        path = f"tasks[{index}].key"
        checks.name(path, task.key, limit=KEY_LIMIT)
        if task.key in by_key:
            checks.fail(path, f"{task.key!r} is the key of an earlier task")
        by_key[task.key] = task
    needs = {key: [n for n in task.depends_on if n in by_key] for key, task in by_key.items()}
    if cycle := find_cycle(needs):
        checks.fail("tasks", "wait for each other: " + " → ".join(cycle))
    checks.done()


@dataclass(frozen=True, slots=True)
class CreateTasks:
    """Submit checked tasks, all or none; answers their ids in the order given."""

    namespace: str
    ids: tuple[str, ...]
    tasks: tuple[NewTask, ...]
    created_by: str
    idempotency: Idempotency | None = None

    @property
    def weight(self) -> int:
        """How many single commands it is worth."""
        return len(self.tasks)

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        keys = self._keys()
        outside = (n for task in self.tasks for n in task.depends_on if n not in keys)
        return (self.ids[0], *outside)

    def decide(self, ledger: Ledger) -> list[str]:
        """See Command."""
        answer = answered_before(ledger, self.namespace, self.idempotency)
        if answer is not None:
            return list(answer)
        if ledger.find_task(self.ids[0]) is not None:
            return list(self.ids)  # stored by the first try, whose answer was lost
        keys = self._keys()
        violations = [
            Violation(f"tasks[{index}].{field}", problem)
            for index, task in enumerate(self.tasks)
            for field, problem in self._unknown(ledger, task, keys)
        ]
        if violations:
            raise Invalid(violations)
        self._add_all(ledger, keys)
        remember_answer(ledger, self.namespace, self.idempotency, list(self.ids))
        return list(self.ids)

    def _keys(self) -> dict[str, str]:
        """Return the ids of the tasks that others of the batch may name by a key."""
        return {task.key: i for i, task in zip(self.ids, self.tasks, strict=True) if task.key}

    def _unknown(
        self, ledger: Ledger, task: NewTask, keys: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        """Yield what a task names and nobody knows: the field, and the problem."""
        if task.pipeline_id:
            try:
                ledger.pipeline(self.namespace, task.pipeline_id)
            except NotFound as error:
                yield "pipeline_id", str(error)
        for place, name in enumerate(task.depends_on):
            if name in keys:
                continue
            found = ledger.find_task(name)
            if found is None or found.namespace != self.namespace:
                yield f"depends_on[{place}]", str(NotFound("task", name))

    def _add_all(self, ledger: Ledger, keys: Mapping[str, str]) -> None:
        """Add the tasks in the order given, except that none comes before what it waits for."""
        built = {
            task_id: build_task(ledger, self.namespace, task_id, task, self.created_by)
            for task_id, task in zip(self.ids, self.tasks, strict=True)
        }
        needs = {
            task_id: list(dict.fromkeys(keys.get(name, name) for name in task.depends_on))
            for task_id, task in zip(self.ids, self.tasks, strict=True)
        }
        order = in_order(needs) if any(needs.values()) else self.ids
        for task_id in order:
            if task_id in built:
                waits_for = [
                    built.get(other) or ledger.task(self.namespace, other)
                    for other in needs[task_id]
                ]
                place_task(ledger, built[task_id], waits_for)
