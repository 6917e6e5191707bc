"""audit.v1.AuditService."""

import json

from generated.audit.v1 import audit_pb2, audit_pb2_grpc
from server.auth import current_caller
from server.domain.audit import AuditEntry
from server.domain.checks import Checks
from server.rpc.context import Context
from server.stores.interfaces import AuditFilter, Reader

PAGE_DEFAULT = 100
PAGE_LIMIT = 1000
LARGEST_KEY = 2**63 - 1


class AuditService(audit_pb2_grpc.AuditServiceServicer):
    """Who changed what."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def ListAudit(
        self, request: audit_pb2.ListAuditRequest, context: Context
    ) -> audit_pb2.ListAuditResponse:
        """See the proto."""
        checks = Checks()
        checks.number("page_size", request.page_size, 0, PAGE_LIMIT)
        checks.number("since", request.since, 0, LARGEST_KEY)
        for name in ("caller", "subject", "action"):
            checks.text(name, getattr(request, name), 256)
        token = request.page_token
        known = token.isascii() and token.isdigit() and 0 < int(token or 0) <= LARGEST_KEY
        if token and not known:
            checks.fail("page_token", "is not one that a page before gave")
        checks.done()
        size = request.page_size or PAGE_DEFAULT
        wanted = AuditFilter(
            current_caller().namespace,
            since=request.since,
            caller=request.caller,
            subject=request.subject,
            action=request.action,
            before=int(token) if token else None,
        )
        found = await self._reader.audit(wanted, size + 1)
        more = len(found) > size
        return audit_pb2.ListAuditResponse(
            entries=map(_message, found[:size]),
            next_page_token=str(found[size - 1].key) if more else "",
        )


def _message(entry: AuditEntry) -> audit_pb2.AuditEntry:
    return audit_pb2.AuditEntry(
        at=entry.at,
        action=entry.action,
        subject=entry.subject,
        caller=entry.caller,
        kind=entry.kind,
        credential=entry.credential,
        peer=entry.peer,
        request_id=entry.request_id,
        method=entry.method,
        before=json.dumps(entry.before, ensure_ascii=False) if entry.before else "",
        after=json.dumps(entry.after, ensure_ascii=False) if entry.after else "",
    )
