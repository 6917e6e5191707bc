"""Plugins are published, and taken back."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from server.domain.checks import Checks
from server.domain.errors import AlreadyExists, NotFound
from server.domain.ledger import Ledger
from server.domain.plugin import PublishedPlugin

REASON_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class PublishPlugin:
    """Add a version; answers it, and whether it was there with the same bytes."""

    namespace: str
    plugin: PublishedPlugin
    """With key and moment still open."""

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> tuple[PublishedPlugin, bool]:
        """See Command.

        Raises:
            AlreadyExists: the version has other bytes.
        """
        new = self.plugin
        known = ledger.source.plugin(self.namespace, new.plugin_id, new.version)
        if known is not None:
            if known.sha256 != new.sha256:
                raise AlreadyExists("plugin with other bytes", new.name)
            return known, True
        made = replace(new, key=ledger.source.new_key(), published_at=ledger.now)
        ledger.add_plugin(made)
        return made, False


@dataclass(frozen=True, slots=True)
class YankPlugin:
    """Take a version back, or give it out again; answers it as it is then."""

    namespace: str
    plugin_id: str
    version: str
    reason: str
    """Empty gives it out again."""

    def check(self) -> None:
        """Check the reason.

        Raises:
            Invalid: it is malformed.
        """
        checks = Checks()
        checks.text("reason", self.reason, REASON_LIMIT)
        checks.done()

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> PublishedPlugin:
        """See Command.

        Raises:
            NotFound: no such version.
        """
        known = ledger.source.plugin(self.namespace, self.plugin_id, self.version)
        if known is None:
            raise NotFound("plugin", f"{self.plugin_id}@{self.version}")
        known.yanked = self.reason
        ledger.touch_plugin(known)
        return known
