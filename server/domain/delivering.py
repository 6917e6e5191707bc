"""Hooks come and go; deliveries are kept, looked at, and start runs: each once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from server.domain.checks import Checks
from server.domain.errors import AlreadyExists, Invalid, NotFound, WrongState
from server.domain.event import Event, EventKind
from server.domain.hook import DEDUPLICATED, Delivery, DeliveryState, Hook, HookKind
from server.domain.ids import moment_id
from server.domain.ledger import Ledger
from server.domain.moment import SECOND, Moment
from server.domain.secret import SECRET_NAME
from server.domain.trigger_event import TriggerEvent
from server.domain.triggering import Trigger, start_run

CLAIMED = 10 * SECOND
"""How long a delivery is left alone that somebody looks at."""

MOST_HOOKS = 20
"""Hooks of one pipeline."""


@dataclass(frozen=True, slots=True)
class CreateHook:
    """Let a forge call for a pipeline; answers the hook's id."""

    namespace: str
    hook_id: str
    pipeline_id: str
    kind: HookKind
    secret: str
    header: str = ""
    created_by: str = ""

    def check(self) -> None:
        """Check every field, by its path in CreateHookRequest.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        check_secret_name(checks, "secret", self.secret)
        if self.kind is HookKind.HMAC:
            checks.name("header", self.header, limit=64)
            if not all(c.isalnum() or c == "-" for c in self.header) or not self.header.isascii():
                checks.fail("header", "must be the name of an HTTP header")
        elif self.header:
            checks.fail("header", f"a hook of the kind {self.kind.value} has its own")
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        pipeline = ledger.pipeline(self.namespace, self.pipeline_id)
        known = ledger.source.hooks_of(pipeline.key)
        for hook in known:
            if hook.public_id == self.hook_id:  # a retry after a lost answer
                return hook.public_id
            if (hook.kind, hook.header) == (self.kind, self.header.lower()):
                raise AlreadyExists("hook", f"{hook.kind.value} of {pipeline.name}")
        if len(known) >= MOST_HOOKS:
            raise WrongState("pipeline", pipeline.public_id, f"has {MOST_HOOKS} hooks already")
        ledger.add_hook(
            Hook(
                ledger.source.new_key(),
                self.namespace,
                self.hook_id,
                pipeline.key,
                pipeline.public_id,
                self.kind,
                self.secret,
                ledger.now,
                header=self.header.lower(),
                created_by=self.created_by,
            )
        )
        return self.hook_id


def check_secret_name(checks: Checks, field: str, name: str) -> None:
    """Note a malformed name of a secret."""
    if not SECRET_NAME.fullmatch(name):
        checks.fail(field, "must be the name of a kept secret: 1 to 128 letters, digits and . _ -")


@dataclass(frozen=True, slots=True)
class RotateHook:
    """Sign a hook's calls with another secret; the one before counts on, or `keep` says not."""

    namespace: str
    hook_id: str
    secret: str
    keep: bool = True

    def check(self) -> None:
        """Check every field, by its path in RotateHookRequest.

        Raises:
            Invalid: a field is malformed.
        """
        checks = Checks()
        check_secret_name(checks, "secret", self.secret)
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        hook = ledger.hook(self.namespace, self.hook_id)
        if hook.secret != self.secret:  # no secret: their names
            hook.previous_secret, hook.secret = hook.secret, self.secret
        if not self.keep:
            hook.previous_secret = ""
        ledger.touch_hook(hook)


@dataclass(frozen=True, slots=True)
class DeleteHook:
    """Let nobody call by a hook any more; its deliveries go with it."""

    namespace: str
    hook_id: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> None:
        """See Command."""
        ledger.delete_hook(ledger.hook(self.namespace, self.hook_id))


# ---- deliveries


@dataclass(frozen=True, slots=True)
class PruneDeliveries:
    """Forget the oldest deliveries that were done before a moment; answers blobs to delete."""

    before: Moment
    limit: int = 200

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[str]:
        """See Command."""
        ledger.flush()
        names = ledger.source.prune_deliveries(self.before, self.limit)
        ledger.edits += bool(names)
        return names


@dataclass(frozen=True, slots=True)
class ReceiveDelivery:
    """Keep a delivery; answers its id, and whether it came before."""

    namespace: str
    hook_id: str
    delivery_id: str
    forge_id: str
    digest: str
    """Empty where the caller's id is signed."""
    event: str
    size: int
    body: bytes | None
    blob: str = ""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> tuple[str, bool]:
        """See Command."""
        hook = ledger.hook(self.namespace, self.hook_id)  # locked: one after the other
        since = ledger.now - DEDUPLICATED
        known = ledger.known_delivery(hook, self.forge_id, self.digest, since)
        if known is not None:
            return known.public_id, known.public_id != self.delivery_id
        ledger.add_delivery(
            Delivery(
                ledger.source.new_key(),
                hook.namespace,
                self.delivery_id,
                hook.key,
                hook.pipeline_id,
                ledger.now,
                forge_id=self.forge_id,
                digest=self.digest,
                event=self.event,
                size=self.size,
                body=self.body,
                blob=self.blob,
                due_at=ledger.now,
            )
        )
        return self.delivery_id, False


@dataclass(frozen=True, slots=True)
class Redeliver:
    """Have a delivery looked at again, as a new one; answers its id."""

    namespace: str
    delivery_id: str
    new_id: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> str:
        """See Command."""
        if ledger.source.delivery(self.new_id) is not None:
            return self.new_id  # stored by the first try, whose answer was lost
        old = ledger.delivery(self.namespace, self.delivery_id)
        if old.state is DeliveryState.RECEIVED:
            raise WrongState("delivery", old.public_id, "has not been looked at yet")
        ledger.add_delivery(
            replace(
                old,
                key=ledger.source.new_key(),
                public_id=self.new_id,
                received_at=ledger.now,
                forge_id="",
                digest="",
                state=DeliveryState.RECEIVED,
                outcome="",
                run_ids=[],
                due_at=ledger.now,
                finished_at=None,
                redelivers=old.public_id,
            )
        )
        return self.new_id


@dataclass(frozen=True, slots=True)
class ClaimDeliveries:
    """Take deliveries that nobody looks at; answers them, each with its hook."""

    limit: int = 20

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[tuple[Delivery, Hook]]:
        """See Command."""
        taken = []
        for delivery in ledger.deliveries_due(self.limit):
            hook = ledger.source.hook_by_key(delivery.hook_key)
            if hook is None:
                continue
            delivery.due_at = ledger.now + CLAIMED
            ledger.touch_delivery(delivery)
            taken.append((replace(delivery), hook))
        return taken


@dataclass(frozen=True, slots=True)
class FinishDelivery:
    """Start what a delivery starts; answers the runs' ids. One that is done stays as it is."""

    namespace: str
    delivery_id: str
    kind: HookKind
    events: Sequence[TriggerEvent] = ()
    outcome: str = ""
    """Why nothing starts, or not all of it."""
    refused: bool = False

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[str]:
        """See Command."""
        delivery = ledger.delivery(self.namespace, self.delivery_id)
        if delivery.state is not DeliveryState.RECEIVED:
            return delivery.run_ids
        outcomes = [self.outcome] if self.outcome else []
        refused = self.refused
        for place, event in enumerate(self.events):
            try:
                delivery.run_ids = [*delivery.run_ids, self._start(ledger, delivery, place, event)]
            except (Invalid, NotFound) as error:
                refused = True
                outcomes.append(str(error))
        delivery.outcome = "; ".join(outcomes)[:1024]
        delivery.due_at, delivery.finished_at = None, ledger.now
        if delivery.run_ids:
            delivery.state = DeliveryState.STARTED
        else:
            delivery.state = DeliveryState.REFUSED if refused else DeliveryState.IGNORED
        ledger.touch_delivery(delivery)
        self._tell(ledger, delivery)
        return delivery.run_ids

    def _start(self, ledger: Ledger, delivery: Delivery, place: int, event: TriggerEvent) -> str:
        pipeline = ledger.pipeline(self.namespace, delivery.pipeline_id)
        sender = f":{event.sender[:128]}" if event.sender else ""
        trigger = Trigger(
            branch=event.branch,
            commit_sha=event.commit,
            triggered_by=f"webhook:{self.kind.value}{sender}",
            event=event,
        )
        trigger.check()
        run_id = moment_id(f"{delivery.public_id} {place}", delivery.received_at)
        return start_run(ledger, pipeline, run_id, trigger)[0]

    def _tell(self, ledger: Ledger, delivery: Delivery) -> None:
        ledger.tell(
            Event(
                EventKind.HOOK_DELIVERED,
                delivery.namespace,
                ledger.now,
                delivery.public_id,
                run_id=delivery.run_ids[0] if delivery.run_ids else None,
                pipeline_id=delivery.pipeline_id,
                data={"name": delivery.event, "text": delivery.outcome},
            )
        )
