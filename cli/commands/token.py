"""`muster token`: who may call, and which hosts may become agents."""

from collections.abc import Sequence
from datetime import timedelta

import click

from cli.connection import Api, with_api
from cli.framework import Group
from cli.output import print_table, show, show_all
from cli.pairs import LABEL
from cli.since import DURATION
from cli.times import age, deadline
from generated.auth.v1 import auth_pb2

ROLES = {
    "viewer": auth_pb2.ROLE_VIEWER,
    "operator": auth_pb2.ROLE_OPERATOR,
    "admin": auth_pb2.ROLE_ADMIN,
}
HEADINGS = ("TOKEN", "NAME", "ROLE", "NAMESPACE", "MADE", "USED", "UNTIL")
ENROL_HEADINGS = ("TOKEN", "NAME", "USES LEFT", "LABELS", "MADE", "USED", "UNTIL")


@click.group("token", cls=Group)
def command() -> None:
    """Make, list and revoke the tokens by which callers say who they are."""


@command.command(
    "create",
    epilog="""
    muster token create ci --role operator
    muster token create prometheus --role viewer --server-wide --expires 3650d
    """,
)
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES)), required=True, help="What it may do.")
@click.option("--server-wide", is_flag=True, help="Let it count in every namespace.")
@click.option("--expires", type=DURATION, help="How long it counts (default: 90d).")
@with_api
async def create(
    api: Api, name: str, role: str, server_wide: bool, expires: timedelta | None
) -> None:
    """Make a token for a person or a program; it is shown this once."""
    request = auth_pb2.CreateTokenRequest(
        name=name,
        kind=auth_pb2.TOKEN_KIND_USER,
        role=ROLES[role],
        server_wide=server_wide,
        lifetime_seconds=_seconds(expires),
    )
    _show_new(await api.call(api.auth.CreateToken, request))


@command.command(
    "enrol",
    epilog="""
    muster token enrol rack-7 --uses 40 --expires 1h
    muster token enrol gpu-hosts --uses 8 --label pool=gpu
    """,
)
@click.argument("name")
@click.option("--uses", type=click.IntRange(1), default=1, show_default=True, help="Hosts.")
@click.option("--label", type=LABEL, multiple=True, help="K=V that its hosts get for good.")
@click.option("--server-wide", is_flag=True, help="Let its hosts run tasks of every namespace.")
@click.option("--expires", type=DURATION, help="How long it counts (default: 1d).")
@with_api
async def enrol(
    api: Api,
    name: str,
    uses: int,
    label: Sequence[tuple[str, str]],
    server_wide: bool,
    expires: timedelta | None,
) -> None:
    """Make a token with which hosts become agents; it is shown this once."""
    request = auth_pb2.CreateTokenRequest(
        name=name,
        kind=auth_pb2.TOKEN_KIND_ENROL,
        uses=uses,
        server_wide=server_wide,
        labels=dict(label),
        lifetime_seconds=_seconds(expires),
    )
    _show_new(await api.call(api.auth.CreateToken, request))


@command.command(
    "agent",
    epilog="""
    muster token agent old-builder
    muster token agent old-builder --expires 3650d --label pool=legacy
    """,
)
@click.argument("agent_id")
@click.option("--label", type=LABEL, multiple=True, help="K=V that it gets for good.")
@click.option("--expires", type=DURATION, help="How long it counts (default: 90d).")
@with_api
async def agent(
    api: Api, agent_id: str, label: Sequence[tuple[str, str]], expires: timedelta | None
) -> None:
    """Make a token for one agent that cannot enrol by itself; it is shown this once."""
    request = auth_pb2.CreateTokenRequest(
        name=agent_id,
        kind=auth_pb2.TOKEN_KIND_AGENT,
        agent_id=agent_id,
        labels=dict(label),
        lifetime_seconds=_seconds(expires),
    )
    _show_new(await api.call(api.auth.CreateToken, request))


@command.command("list", epilog="muster token list\nmuster token list --enrol --all")
@click.option("--enrol", is_flag=True, help="Those that make agents.")
@click.option("--all", "everything", is_flag=True, help="Also those that do not count any more.")
@with_api
async def list_tokens(api: Api, enrol: bool, everything: bool) -> None:
    """List tokens, without their text."""
    kind = auth_pb2.TOKEN_KIND_ENROL if enrol else auth_pb2.TOKEN_KIND_USER
    request = auth_pb2.ListTokensRequest(kind=kind, all=everything)
    tokens = (await api.call(api.auth.ListTokens, request)).tokens
    if enrol:
        show_all(tokens, lambda: print_table(ENROL_HEADINGS, map(_enrol_row, tokens)))
    else:
        show_all(tokens, lambda: print_table(HEADINGS, map(_row, tokens)))


@command.command("revoke", epilog="muster token revoke 019…")
@click.argument("token_id")
@with_api
async def revoke(api: Api, token_id: str) -> None:
    """Let a token count no more, at once."""
    request = auth_pb2.RevokeTokenRequest(token_id=token_id)
    token = (await api.call(api.auth.RevokeToken, request)).token
    show(token, lambda: click.echo(f"{token.name} ({token.token_id}) counts no more."))


def _show_new(answer: auth_pb2.CreateTokenResponse) -> None:
    def for_people() -> None:
        until = deadline(answer.token.expires_at / 1000)
        note = f"Token {answer.token.token_id} of {answer.token.name}, until {until}; shown once:"
        click.echo(note, err=True)
        click.echo(answer.text)

    show(answer, for_people)


def _seconds(expires: timedelta | None) -> int:
    return int(expires.total_seconds()) if expires else 0


def _row(token: auth_pb2.Token) -> tuple[str, ...]:
    role = auth_pb2.Role.Name(token.role).removeprefix("ROLE_").lower()
    return (token.token_id, token.name, role, token.namespace, *_times(token))


def _enrol_row(token: auth_pb2.Token) -> tuple[str, ...]:
    labels = ",".join(f"{key}={value}" for key, value in sorted(token.labels.items()))
    return (token.token_id, token.name, str(token.uses_left), labels, *_times(token))


def _times(token: auth_pb2.Token) -> tuple[str, str, str]:
    used = age(token.used_at / 1000) if token.used_at else "never"
    until = "revoked" if token.revoked_at else deadline(token.expires_at / 1000)
    return age(token.created_at / 1000), used, until
