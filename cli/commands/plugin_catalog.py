"""`muster plugin publish|list|get|yank`: the plugins that a server keeps."""

from collections.abc import AsyncIterator
from pathlib import Path

import click

from cli.connection import Api, with_api
from cli.failure import CommandFailed
from cli.framework import Command
from cli.output import print_fields, print_table, show, show_all
from cli.times import age, moment
from generated.catalog.v1 import catalog_pb2
from plugins.package import signature
from plugins.package.inspection import inspect
from plugins.package.refusal import PackageRefused

HEADINGS = ("PLUGIN", "VERSION", "TYPE", "PUBLISHED", "SIGNED BY", "DESCRIPTION")
PIECE = 512 * 1024
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("publish", cls=Command, epilog="muster plugin publish greet-0.1.0.tar.gz")
@click.argument("file", type=FILE)
@click.option("--signature", "signed", type=FILE, help="The signature (default: FILE.minisig).")
@with_api
async def publish(api: Api, file: Path, signed: Path | None) -> None:
    """Give a package to the server: from then on tasks can use it. A version never changes."""
    beside = file.with_name(file.name + signature.SUFFIX)
    signed = signed or (beside if beside.exists() else None)
    try:
        with file.open("rb") as opened:
            inspect(opened)
        text = signature.read_text(signed) if signed else ""
    except PackageRefused as error:
        raise CommandFailed(str(error)) from None
    except OSError as error:
        raise CommandFailed(f"{error.filename}: {error.strerror}") from None
    answer = await api.catalog.PublishPlugin(_pieces(file, text), metadata=api.metadata)
    plugin = answer.plugin
    what = "was there already" if answer.already_there else "is published"
    uses = f"uses: {plugin.plugin_id}@{plugin.version}"
    show(answer, lambda: click.echo(f"{plugin.plugin_id} {plugin.version} {what}. {uses}"))


async def _pieces(file: Path, text: str) -> AsyncIterator[catalog_pb2.PublishPluginRequest]:
    with file.open("rb") as opened:
        first = True
        while data := opened.read(PIECE):
            signed = text if first else ""
            first = False
            yield catalog_pb2.PublishPluginRequest(signature=signed, data=data)


@click.command("list", cls=Command, epilog="muster plugin list\nmuster plugin list greet")
@click.argument("plugin", metavar="[ID]", default="")
@click.option("--type", "type_", default="", help="Only of this type: step, notify, …")
@with_api
async def list_plugins(api: Api, plugin: str, type_: str) -> None:
    """List plugins: the latest version of each, or all versions of one."""
    request = catalog_pb2.ListPluginsRequest(plugin_id=plugin, type=type_)
    found = (await api.call(api.catalog.ListPlugins, request)).plugins
    show_all(found, lambda: print_table(HEADINGS, map(_row, found)))


@click.command("get", cls=Command, epilog="muster plugin get greet\nmuster plugin get greet@0.1.0")
@click.argument("plugin", metavar="ID[@VERSION]")
@with_api
async def get(api: Api, plugin: str) -> None:
    """Show a plugin: what it takes, what it asks for, and whose it is."""
    id_, _, version = plugin.partition("@")
    request = catalog_pb2.GetPluginRequest(plugin_id=id_, version=version)
    found = (await api.call(api.catalog.GetPlugin, request)).plugin
    show(found, lambda: print_fields(_fields(found)))


@click.command(
    "yank",
    cls=Command,
    epilog='muster plugin yank greet@0.1.0 --reason "greets the wrong people"\n'
    "muster plugin yank greet@0.1.0 --undo",
)
@click.argument("plugin", metavar="ID@VERSION")
@click.option("--reason", default="", help="Why, for whoever used it.")
@click.option("--undo", is_flag=True, help="Give it out again.")
@with_api
async def yank(api: Api, plugin: str, reason: str, undo: bool) -> None:
    """Take a version back: tasks get it by its digest alone."""
    id_, _, version = plugin.partition("@")
    if not version:
        raise click.UsageError("say which version: ID@VERSION")
    if bool(reason) == undo:
        raise click.UsageError("say --reason, or --undo")
    request = catalog_pb2.YankPluginRequest(
        plugin_id=id_, version=version, reason=reason, undo=undo
    )
    found = (await api.call(api.catalog.YankPlugin, request)).plugin
    what = "is given out again" if undo else "was taken back"
    show(found, lambda: click.echo(f"{id_} {version} {what}."))


def _row(plugin: catalog_pb2.Plugin) -> tuple[str, ...]:
    when = "with Muster" if plugin.bundled else age(plugin.published_at / 1000)
    version = f"{plugin.version} (yanked)" if plugin.yanked else plugin.version
    return (
        plugin.plugin_id,
        version,
        plugin.type,
        when,
        plugin.signed_by,
        plugin.description[:80],
    )


def _fields(plugin: catalog_pb2.Plugin) -> list[tuple[str, str]]:
    return [
        ("Plugin", f"{plugin.plugin_id}@{plugin.version}"),
        ("Description", plugin.description),
        ("Type", plugin.type),
        ("Protocol", plugin.protocol),
        ("Platforms", ", ".join(plugin.platforms)),
        ("Permissions", ", ".join(plugin.permissions)),
        ("Minimum agent", plugin.minimum_agent),
        ("Size", "" if plugin.bundled else f"{plugin.size} bytes"),
        ("SHA-256", plugin.sha256),
        ("Signed by", plugin.signed_by),
        ("Published", "with Muster" if plugin.bundled else moment(plugin.published_at / 1000)),
        ("By", plugin.published_by),
        ("Yanked", plugin.yanked),
        ("Parameters", plugin.parameters),
    ]
