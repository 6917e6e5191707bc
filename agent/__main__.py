"""Entry point of the agent: reads settings, runs the session process."""

import os

# Before anything imports grpc: with its fork handlers, children of a process with a live stream
# died before exec in half of the spawns that were measured.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# Its own remarks on standard error are no lines of the log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import sys
from datetime import timedelta
from pathlib import Path

import click

from agent.config import (
    ENVIRONMENT_PREFIX,
    Settings,
    Tls,
    check_levels,
    check_server,
    default_data_dir,
    default_slots,
    misspelt,
    parse_labels,
)
from agent.confining import ConfinementError, confinement
from agent.credential import CredentialError, enrolment_token
from agent.plugin_cache import Trust
from servicelog.levels import LEVELS, Level
from servicelog.setup import FORMATS, Format, LogFile


@click.command(context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX, "show_default": True})
@click.option(
    "--server", default="127.0.0.1:50051", callback=check_server, help="Control plane, HOST:PORT."
)
@click.option("--labels", default="", help="Labels that selectors can ask for: k=v,k=v.")
@click.option(
    "--labels-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Further labels, one k=v a line; read again on SIGHUP.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 10000),
    default=default_slots,
    show_default="processors",
    help="Tasks run at a time, at most.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    help="Where the agent keeps its id and its spool.",
)
@click.option(
    "--name", default="", metavar="ID", help="Agent id, 1 to 128 characters; else one is made once."
)
@click.option(
    "--drain-limit",
    type=click.FloatRange(min=0),
    default=60.0,
    help="Seconds SIGTERM waits for tasks before it stops them.",
)
@click.option("--namespace", default="", help="Namespace to register in (default: the token's).")
@click.option(
    "--enrolment-token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the token that makes this host an agent; only for the first start.",
)
@click.option("--tls", is_flag=True, help="Encrypt; trust the authorities of the system.")
@click.option(
    "--tls-ca",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Encrypt; trust the authority in this file.",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The agent's own certificate, for a server that asks for one.",
)
@click.option(
    "--tls-key",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The key of --tls-cert.",
)
@click.option(
    "--hardened",
    is_flag=True,
    help="--no-new-privileges; as root also --private-tmp and --task-user nobody.",
)
@click.option("--task-user", default="", metavar="USER", help="Run tasks as this user; needs root.")
@click.option(
    "--no-new-privileges", is_flag=True, help="Let no program of a task gain privileges (setuid)."
)
@click.option("--private-tmp", is_flag=True, help="Give each task a /tmp of its own; needs root.")
@click.option(
    "--sandbox",
    type=click.Choice(["none", "bubblewrap"]),
    default="none",
    help="Let tasks see the host's files without changing them, and no other processes.",
)
@click.option(
    "--allow-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with what tasks may do here, whatever the server says.",
)
@click.option(
    "--trusted-task-keys",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with keys, KEY_ID:PUBLIC_KEY a line; run only tasks that one of them has signed.",
)
@click.option(
    "--plugin-keys",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="Public key of minisign's; a plugin that is signed must be by one of them.",
)
@click.option(
    "--require-signed-plugins",
    is_flag=True,
    help="Run no plugin that none of --plugin-keys signed.",
)
@click.option(
    "--plugin-cache-size",
    type=click.IntRange(1),
    default=2048,
    help="MiB of plugins that are kept.",
)
@click.option(
    "--workspace-quota",
    type=click.IntRange(0),
    default=0,
    help="MiB of disk that the workspace of each task may take; 0 is no limit.",
)
@click.option(
    "--workspace-keep-days",
    type=click.FloatRange(0, 36500),
    default=7.0,
    help="Days a workspace is kept that its task leaves on request.",
)
@click.option(
    "--workspace-spare-disk",
    type=click.IntRange(0),
    default=1024,
    help="MiB of free disk below which the oldest kept workspaces go; at most a 20th of the disk.",
)
@click.option("--insecure", is_flag=True, help="Show tokens to another machine in plain text.")
@click.option(
    "--metrics-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of *.prom files with measurements of your own, NAME VALUE a line.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    help="Least severe level that is logged.",
)
@click.option(
    "--log-levels",
    default="",
    callback=check_levels,
    metavar="MODULE=LEVEL,…",
    help="Levels of modules that are not to have --log-level: agent.board=debug.",
)
@click.option(
    "--log-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to which messages are written too, as JSON.",
)
@click.option(
    "--log-file-bytes",
    type=click.IntRange(1),
    default=50 * 1024 * 1024,
    help="How large that file may become before a new one is begun.",
)
@click.option(
    "--log-file-count", type=click.IntRange(1), default=5, help="How many older files are kept."
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="auto",
    help="How messages are written to stderr; auto is console on a terminal, json elsewhere.",
)
@click.pass_context
def main(
    context: click.Context,
    server: str,
    labels: str,
    labels_file: Path | None,
    slots: int,
    data_dir: Path,
    name: str,
    drain_limit: float,
    namespace: str,
    enrolment_token_file: Path | None,
    tls: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    hardened: bool,
    task_user: str,
    no_new_privileges: bool,
    private_tmp: bool,
    sandbox: str,
    allow_file: Path | None,
    trusted_task_keys: Path | None,
    plugin_keys: tuple[Path, ...],
    require_signed_plugins: bool,
    plugin_cache_size: int,
    workspace_quota: int,
    workspace_keep_days: float,
    workspace_spare_disk: int,
    insecure: bool,
    metrics_dir: Path | None,
    log_level: Level,
    log_levels: dict[str, Level],
    log_file: Path | None,
    log_file_bytes: int,
    log_file_count: int,
    log_format: Format,
) -> None:
    """Runs tasks of a Muster control plane on this host."""
    # They import grpc and the API, which `--help` need not wait for.
    from agent import allowing, app, trusting
    from agent.allowing import AllowListError
    from agent.trusting import TrustError

    options = [parameter.name for parameter in context.command.params if parameter.name]
    for warning in misspelt(os.environ, [*options, "enrolment_token"]):
        click.echo(f"Warning: {warning}", err=True)
    if len(name) > 128:
        raise click.BadParameter("longer than 128 characters", param_hint="--name")
    data_dir = data_dir.expanduser().resolve()
    try:
        allowed = allowing.read(allow_file)
        trusted = trusting.read(trusted_task_keys)
        confined = confinement(
            data_dir,
            hardened=hardened,
            user=task_user,
            no_new_privileges=no_new_privileges,
            private_tmp=private_tmp,
            sandbox=sandbox,
        )
    except (AllowListError, ConfinementError, TrustError) as error:
        raise click.ClickException(str(error)) from error
    settings = Settings(
        server=server,
        data_dir=data_dir,
        slots=slots,
        labels=parse_labels(labels),
        labels_file=labels_file,
        name=name,
        drain_limit=timedelta(seconds=drain_limit),
        namespace=namespace,
        enrolment=_enrolment(enrolment_token_file),
        tls=_tls(tls, tls_ca, tls_cert, tls_key),
        allowed=allowed,
        trusted=trusted,
        confinement=confined,
        plugin_trust=_plugin_trust(plugin_keys, require_signed_plugins),
        plugin_cache_bytes=plugin_cache_size << 20,
        workspace_quota=workspace_quota << 20,
        workspace_keep=timedelta(days=workspace_keep_days),
        workspace_spare_disk=workspace_spare_disk << 20,
        insecure=insecure,
        metrics_dir=metrics_dir.expanduser() if metrics_dir else None,
        log_level=log_level,
        log_levels=log_levels,
        log_format=log_format,
        log_file=LogFile(log_file, log_file_bytes, log_file_count) if log_file else None,
    )
    sys.exit(app.run(settings))


def _enrolment(file: Path | None) -> str:
    try:
        return enrolment_token(file)
    except CredentialError as error:
        raise click.ClickException(str(error)) from error


def _plugin_trust(files: tuple[Path, ...], required: bool) -> Trust:
    from agent.plugin_cache import Trust

    if required and not files:
        raise click.UsageError("--require-signed-plugins needs --plugin-keys")
    if not files:
        return Trust()
    from plugins.package.refusal import PackageRefused
    from plugins.package.signature import parse_public_key, read_text

    try:
        return Trust(tuple(parse_public_key(read_text(file)) for file in files), required)
    except (OSError, PackageRefused) as error:
        raise click.ClickException(f"--plugin-keys: {error}") from error


def _tls(wanted: bool, ca: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    if not (wanted or ca or certificate):
        return None
    return Tls(ca, certificate, key)


if __name__ == "__main__":
    main()
