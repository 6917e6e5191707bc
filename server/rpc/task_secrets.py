"""The secrets of tasks that are submitted: those that come along, and those they name."""

from collections.abc import Callable, Iterable, Mapping

from server.auth import current_caller
from server.domain.checks import printable
from server.domain.errors import Invalid, SecretsRefused, Violation
from server.domain.submitting import NewTask
from server.sealing import Sealer
from server.secret_store import SecretStore


class TaskSecrets:
    """See the module."""

    def __init__(self, store: SecretStore | None, sealer: Sealer | None) -> None:
        self._store = store
        self._sealer = sealer

    def seal(self, secrets: Mapping[str, str]) -> str:
        """Return secrets that a task brings along, encrypted.

        Raises:
            SecretsRefused: there is no key for them.
        """
        if self._sealer is None:
            raise SecretsRefused
        return self._sealer.seal_all(secrets, current_caller().namespace)

    def digest_for(self, tasks: Iterable[NewTask]) -> Callable[[bytes], str] | None:
        """Return what is to be kept of a request that brings secrets along; None for any other."""
        if self._sealer is None or not any(task.spec.sealed for task in tasks):
            return None
        return self._sealer.fingerprint

    async def check_known(self, named: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """See that the secrets exist that tasks name; each comes with its field's path.

        Raises:
            Invalid: one does not.
            StoreUnavailable: the store does not answer.
        """
        wanted = {(path, each, refs[each]) for path, refs in named for each in refs}
        if not wanted:
            return
        if self._store is None:
            raise SecretsRefused
        names = {name for _, _, name in wanted}
        missing: set[str] = set(await self._store.missing(current_caller().namespace, names))
        violations = [
            Violation(f"{path}secret_refs[{printable(variable)}]", f"there is no secret {name!r}")
            for path, variable, name in sorted(wanted)
            if name in missing
        ]
        if violations:
            raise Invalid(violations)
