"""`muster plugin`: write plugins, pack them, check packages; and what a server keeps of them."""

import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cli import plugin_template
from cli.commands import plugin_catalog
from cli.failure import CommandFailed
from cli.framework import Group
from cli.output import print_fields, show_data
from cli.plugin_template import Language
from plugins.package import signature
from plugins.package.inspection import Package, inspect
from plugins.package.manifest import ID, Manifest, Type
from plugins.package.packing import default_name, manifest_of, pack
from plugins.package.refusal import PackageRefused

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
NEW_FILE = click.Path(path_type=Path, dir_okay=False)
WORDS = {"id": "ID", "sha256": "SHA-256"}


@click.group("plugin", cls=Group)
def command() -> None:
    """Write plugins, pack them into one file, check such files, and publish them."""


for _command in (
    plugin_catalog.publish,
    plugin_catalog.list_plugins,
    plugin_catalog.get,
    plugin_catalog.yank,
):
    command.add_command(_command)


@command.command(
    "init",
    epilog="""
    muster plugin init greet
    muster plugin init greet --language python --type notify
    """,
)
@click.argument("id_", metavar="ID")
@click.option(
    "--language",
    type=click.Choice([each.value for each in Language]),
    default=Language.SH.value,
    show_default=True,
    help="A script for the shell, or a function in Python.",
)
@click.option(
    "--type", "type_", type=click.Choice(list(Type)), default=Type.STEP, show_default=True
)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to (default: ./ID).")
def init(id_: str, language: str, type_: str, folder: Path | None) -> None:
    """Start a plugin: a manifest and a program that runs."""
    if not ID.fullmatch(id_):
        text = f"{id_!r} is not 1 to 63 of a-z, 0-9 and '-', with '-' only between others"
        raise click.BadParameter(text, param_hint="ID")
    folder = folder or Path(id_)
    with _told():
        folder.mkdir()
        for name, text, mode in plugin_template.files(id_, type_, Language(language)):
            path = folder / name
            path.write_text(text, encoding="utf-8")
            path.chmod(mode)
    click.echo(f"{folder} has a plugin. Try it with: muster plugin try {folder} name=Ada")


@command.command(
    "try",
    epilog="""
    muster plugin try greet name=Ada
    muster plugin try examples/plugins/word-count path=README.md top=5 --workspace .
    """,
)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("given", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder it works in (default: an empty one that goes afterwards).",
)
def try_out(folder: Path, given: Sequence[str], workspace: Path | None) -> int:
    """Run the plugin in a folder as an agent would; the exit code is its own.

    A parameter that plugin.toml calls a string is taken as it is, any other as JSON.
    """
    from plugins.sdk import harness  # late: it needs gRPC

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    with _told(), tempfile.TemporaryDirectory() as empty:
        parameters = _parameters(given, manifest_of(folder))
        ran = harness.run(folder, parameters, workspace or Path(empty), timeout=None, show=True)
    if ran.outputs:
        click.echo(f"Outputs:\n{ran.outputs.rstrip()}")
    return ran.exit_code


def _parameters(given: Sequence[str], manifest: Manifest) -> dict[str, Any]:
    kinds = manifest.parameters.get("properties", {})
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="NAME=VALUE")
        kind = kinds.get(name)  # a schema, which may be just true or false
        is_text = isinstance(kind, dict) and kind.get("type") == "string"
        try:
            found[name] = text if is_text else json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found


@command.command(
    "pack",
    epilog="""
    muster plugin pack greet
    muster plugin pack greet --sign release.key
    """,
)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--target", type=NEW_FILE, help="The file to write (default: ./ID-VERSION.tar.gz).")
@click.option("--sign", "key", type=FILE, help="Sign it with the secret key in this file.")
def pack_folder(folder: Path, target: Path | None, key: Path | None) -> None:
    """Pack a folder with a plugin.toml into one file; the same files make the same bytes."""
    with _told():
        secret = signature.parse_secret_key(signature.read_text(key)) if key else None
        target = target or Path(default_name(manifest_of(folder)))
        package = pack(folder, target)
        fields = _fields(target, package)
        if secret is not None:
            signed = target.with_name(target.name + signature.SUFFIX)
            with target.open("rb") as file:
                text = secret.sign(file, f"plugin {package.manifest.id} {package.manifest.version}")
            signed.write_text(text, encoding="utf-8")
            fields["signature"] = str(signed)
    _show(fields)


@command.command(
    "verify",
    epilog="""
    muster plugin verify greet-0.1.0.tar.gz
    muster plugin verify greet-0.1.0.tar.gz --key release.key.pub
    """,
)
@click.argument("file", type=FILE)
@click.option("--sha256", default="", metavar="HEX", help="The package's address has to be this.")
@click.option(
    "--key",
    "keys",
    type=FILE,
    multiple=True,
    help="One of the keys in these files has to have signed it.",
)
@click.option("--signature", "signed", type=FILE, help="The signature (default: FILE.minisig).")
def verify(file: Path, sha256: str, keys: tuple[Path, ...], signed: Path | None) -> None:
    """Check a package: its manifest, every file in it, and whose it is."""
    if signed and not keys:
        raise click.UsageError("--signature needs a --key that it is checked with")
    with _told(), file.open("rb") as opened:
        package = inspect(opened, sha256=sha256)
        fields = _fields(file, package)
        if keys:
            trusted = [signature.parse_public_key(signature.read_text(key)) for key in keys]
            text = signature.read_text(signed or file.with_name(file.name + signature.SUFFIX))
            key, comment = signature.verify(opened, text, trusted)
            fields["signed_by"] = key.name
            fields["comment"] = comment
    _show(fields)


@command.command("key", epilog="muster plugin key release.key")
@click.argument("file", type=NEW_FILE)
def make_key(file: Path) -> None:
    """Make a key to sign with: FILE is secret, FILE.pub is for everybody.

    Both are minisign's; the secret one has no password.
    """
    key = signature.new_key()
    public = file.with_name(file.name + ".pub")
    with _told():
        if public.exists():
            raise CommandFailed(f"{public} is there already")
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(key.text())
        public.write_text(key.public().text(), encoding="utf-8")
    click.echo(f"{file} signs, {public} ({key.public().name}) verifies. Keep the first secret.")


@contextmanager
def _told() -> Iterator[None]:
    """Tell what is wrong with packages and files as failures of the command."""
    try:
        yield
    except PackageRefused as error:
        raise CommandFailed(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CommandFailed(f"{where}{error.strerror or error}") from None


def _fields(file: Path, package: Package) -> dict[str, Any]:
    manifest = package.manifest
    return {
        "file": str(file),
        "id": manifest.id,
        "version": str(manifest.version),
        "type": str(manifest.type),
        "protocol": str(manifest.protocol),
        "platforms": sorted(manifest.entry_points),
        "permissions": sorted(manifest.permissions),
        "minimum_agent": str(manifest.minimum_agent),
        "size": package.size,
        "unpacked": package.unpacked,
        "files": package.files,
        "sha256": package.sha256,
    }


def _show(fields: dict[str, Any]) -> None:
    """Print what a package is."""
    lines = [
        (WORDS.get(name) or name.replace("_", " ").capitalize(), _text(value))
        for name, value in fields.items()
    ]
    show_data(fields, lambda: print_fields(lines))


def _text(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
