"""`muster hook`: let forges and programs call for pipelines."""

import secrets

import click

from cli.connection import Api, with_api
from cli.framework import Group
from cli.names import pipeline_id
from cli.output import print_fields, print_table, show, show_all
from cli.states import short_name
from cli.times import moment
from generated.hook.v1 import hook_pb2
from generated.secret.v1 import secret_pb2

KINDS = ("github", "gitlab", "gitea", "bitbucket", "standard", "hmac")
HEADINGS = ("HOOK", "KIND", "PATH", "SECRET", "BEFORE", "BY")
DELIVERY_HEADINGS = ("DELIVERY", "RECEIVED", "EVENT", "STATE", "RUNS", "WHY NOT")


@click.group("hook", cls=Group)
def command() -> None:
    """Let forges and programs call for pipelines."""


@command.command(
    "add", epilog="muster hook add build github\nmuster hook add build hmac --header X-Sig"
)
@click.argument("pipeline", metavar="PIPELINE")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--secret", default="", metavar="NAME", help="A kept secret; else one is made.")
@click.option("--header", default="", help="With hmac: the header that has the signature.")
@with_api
async def add(api: Api, pipeline: str, kind: str, secret: str, header: str) -> None:
    """Let a forge call for a pipeline; print where, and the secret if it was made: only now."""
    if (kind == "hmac") != bool(header):
        raise click.UsageError("say --header with hmac, and only with it")
    of_pipeline = await pipeline_id(api, pipeline)
    value = ""
    if not secret:
        secret, value = f"hook-{secrets.token_hex(4)}", secrets.token_urlsafe(32)
        await api.call(api.secrets.PutSecret, secret_pb2.PutSecretRequest(name=secret, value=value))
    request = hook_pb2.CreateHookRequest(
        pipeline_id=of_pipeline,
        kind=hook_pb2.HookKind.Value(f"HOOK_KIND_{kind.upper()}"),
        secret=secret,
        header=header,
    )
    answer = await api.call(api.hooks.CreateHook, request)
    fields = (
        ("Hook", answer.hook.hook_id),
        ("Call", f"POST {answer.hook.path} on the server's HTTP address, as application/json"),
        ("Secret", value or f"the kept secret {secret}"),
    )
    show(answer, lambda: print_fields(fields))


@command.command("list", epilog="muster hook list --pipeline build")
@click.option("--pipeline", default="", metavar="NAME|ID", help="Only hooks of this pipeline.")
@with_api
async def list_hooks(api: Api, pipeline: str) -> None:
    """List hooks."""
    of_pipeline = await pipeline_id(api, pipeline) if pipeline else ""
    request = hook_pb2.ListHooksRequest(pipeline_id=of_pipeline)
    found = (await api.call(api.hooks.ListHooks, request)).hooks
    rows = (
        (
            hook.hook_id,
            short_name(hook_pb2.HookKind.DESCRIPTOR, hook.kind).lower(),
            hook.path,
            hook.secret,
            hook.previous_secret,
            hook.created_by,
        )
        for hook in found
    )
    show_all(found, lambda: print_table(HEADINGS, rows))


@command.command("rotate", epilog="muster hook rotate 01928f6e-… new-secret")
@click.argument("hook_id")
@click.argument("secret", metavar="NAME")
@click.option("--forget-previous", is_flag=True, help="Let the secret before count no more.")
@with_api
async def rotate(api: Api, hook_id: str, secret: str, forget_previous: bool) -> None:
    """Have calls signed with another kept secret; the one before counts on."""
    request = hook_pb2.RotateHookRequest(
        hook_id=hook_id, secret=secret, forget_previous=forget_previous
    )
    answer = await api.call(api.hooks.RotateHook, request)
    show(answer, lambda: click.echo("Both count." if not forget_previous else "It alone counts."))


@command.command("remove", epilog="muster hook remove 01928f6e-…")
@click.argument("hook_id")
@with_api
async def remove(api: Api, hook_id: str) -> None:
    """Let nobody call by a hook any more; its deliveries go with it."""
    answer = await api.call(api.hooks.DeleteHook, hook_pb2.DeleteHookRequest(hook_id=hook_id))
    show(answer, lambda: click.echo("Removed."))


@command.command("deliveries", epilog="muster hook deliveries --pipeline build")
@click.option("--pipeline", default="", metavar="NAME|ID", help="Only those for this pipeline.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@with_api
async def deliveries(api: Api, pipeline: str, limit: int) -> None:
    """List what was delivered, newest first, what has started and why the rest did not."""
    of_pipeline = await pipeline_id(api, pipeline) if pipeline else ""
    request = hook_pb2.ListDeliveriesRequest(pipeline_id=of_pipeline, page_size=limit)
    found = (await api.call(api.hooks.ListDeliveries, request)).deliveries
    rows = (
        (
            each.delivery_id,
            moment(each.received_at / 1000),
            each.event,
            short_name(hook_pb2.DeliveryState.DESCRIPTOR, each.state),
            " ".join(each.run_ids),
            each.outcome,
        )
        for each in found
    )
    show_all(found, lambda: print_table(DELIVERY_HEADINGS, rows))


@command.command("redeliver", epilog="muster hook redeliver 01928f6e-…")
@click.argument("delivery_id")
@with_api
async def redeliver(api: Api, delivery_id: str) -> None:
    """Have a delivery looked at again, as a new one; print its id."""
    request = hook_pb2.RedeliverRequest(delivery_id=delivery_id)
    answer = await api.call(api.hooks.Redeliver, request)
    show(answer, lambda: click.echo(answer.delivery_id))
