"""`muster audit`: who changed what, from where."""

import json

import click

from cli.connection import Api, with_api
from cli.framework import Command
from cli.output import print_table, show_all
from cli.pages import all_pages
from cli.since import SINCE
from cli.times import stamp
from generated.audit.v1 import audit_pb2

HEADINGS = ("WHEN", "ACTION", "SUBJECT", "BY", "FROM", "CHANGE")
CHANGE_SHOWN = 120


@click.command(
    "audit",
    cls=Command,
    epilog="""
    muster audit --since 1d
    muster audit --caller ci --action task.
    muster audit --subject 019… -o json
    """,
)
@click.option("--since", type=SINCE, help="From then on: 90s, 10m, 2d, or a moment.")
@click.option("--caller", default="", help="Of this caller.")
@click.option("--subject", default="", help="About this id or name.")
@click.option("--action", default="", help="This action; all of a kind with a dot behind: task.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most.")
@with_api
async def command(
    api: Api, since: int | None, caller: str, subject: str, action: str, limit: int
) -> None:
    """Show who changed what, the newest first."""

    def request(token: str, size: int) -> audit_pb2.ListAuditRequest:
        return audit_pb2.ListAuditRequest(
            since=since or 0,
            caller=caller,
            subject=subject,
            action=action,
            page_size=size,
            page_token=token,
        )

    entries = await all_pages(api, api.audit.ListAudit, request, lambda page: page.entries, limit)
    show_all(entries, lambda: print_table(HEADINGS, map(_row, entries)))


def _row(entry: audit_pb2.AuditEntry) -> tuple[str, ...]:
    by = f"{entry.caller} ({entry.kind})"
    return (stamp(entry.at / 1000), entry.action, entry.subject, by, entry.peer, _change(entry))


def _change(entry: audit_pb2.AuditEntry) -> str:
    before = json.loads(entry.before or "{}")
    after = json.loads(entry.after or "{}")
    parts = [
        f"{name}: {before[name]} → {after[name]}"
        if name in before and name in after
        else f"{name}: {after.get(name, before.get(name))}"
        for name in dict.fromkeys([*before, *after])
    ]
    text = ", ".join(parts)
    return text if len(text) <= CHANGE_SHOWN else f"{text[: CHANGE_SHOWN - 1]}…"
