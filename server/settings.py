"""The server's settings: what each means, its unit and its default.

A flag beats a `MUSTER_*` environment variable, which beats the TOML file, which beats the
default; `server/config.py` does that reading.
"""

import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.address import Address
from server.domain.granting import Grant, parse_grants
from server.stores.blobs.place import SCHEME, Bucket, parse_bucket
from server.stores.plugin_homes.place import OCI, Registry, parse_home
from servicelog.levels import Level, parse_levels
from servicelog.setup import Format

PREFIX = "MUSTER_"
ROLE = re.compile(r"arn:[a-z-]+:iam::[^\s*?]*role/[^\s*?]+")
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
SQLITE = "sqlite:///"
POSTGRESQL = "postgresql+asyncpg://"
STOP_MARGIN = timedelta(seconds=5)
"""How long before a lease's end an agent has stopped what must not outlive it."""
LONGEST_LEASE_GRACE = timedelta(seconds=10)
"""What such a task gets of kill_grace at most."""
LOG_SUFFIX = ".logs"
"""What the folder of logs is called instead of the database's own suffix."""


def parse_duration(value: object) -> object:
    """Return a `timedelta` for plain seconds; pydantic reads every other form itself."""
    if isinstance(value, bool):
        raise ValueError("should be a number of seconds")
    if not isinstance(value, str | int | float):
        return value
    try:
        seconds = float(value)
    except ValueError:
        return value
    try:
        return timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        raise ValueError("should be a finite number of seconds") from None


def parse_address(value: object) -> object:
    """Return an `Address` for text; anything else is left to pydantic."""
    return Address.parse(value) if isinstance(value, str) else value


def parse_module_levels(value: object) -> object:
    """Return a level for each module of MODULE=LEVEL,…; anything else is left to pydantic."""
    return parse_levels(value) if isinstance(value, str) else value


def parse_oidc_grants(value: object) -> object:
    """Return grants for GROUP=ROLE:NAMESPACE,…; anything else is left to pydantic."""
    return parse_grants(value) if isinstance(value, str) else value


def parse_folder(value: object) -> object:
    """Return an absolute path, so that a later change of folder cannot move the data."""
    if value == "":
        raise ValueError("should name a folder")
    return Path(value).expanduser().absolute() if isinstance(value, str | Path) and value else value


def parse_place(value: object) -> object:
    """Return a folder as parse_folder does, or a bucket."""
    if isinstance(value, str) and value.startswith(SCHEME):
        return parse_bucket(value)
    return value if isinstance(value, Bucket) else parse_folder(value)


def parse_plugin_home(value: object) -> object:
    """Return a folder as parse_folder does, a bucket, or a registry."""
    if isinstance(value, str) and value.startswith((SCHEME, OCI)):
        return parse_home(value)
    return value if isinstance(value, Bucket | Registry) else parse_folder(value)


def parse_files(value: object) -> object:
    """Return the paths in a text, parted by commas."""
    if isinstance(value, str):
        return tuple(Path(part).expanduser().absolute() for part in value.split(",") if part)
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration), Field(gt=timedelta(0))]
AnyDuration = Annotated[timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(0))]
Listen = Annotated[Address, BeforeValidator(parse_address), NoDecode]
Folder = Annotated[Path, BeforeValidator(parse_folder)]
Count = Annotated[int, Field(gt=0)]


def _sqlite_in_data_dir(earlier: dict[str, Any]) -> str:
    """Return the default database, or nothing where the folder itself is wrong."""
    folder = earlier.get("data_dir")
    return f"{SQLITE}{folder / 'muster.db'}" if folder else ""


class Settings(BaseSettings):
    """Everything that can be set about a server. Durations are seconds or ISO 8601."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    data_dir: Folder = Field(default_factory=lambda: platformdirs.user_data_path("muster"))
    """Folder for everything the server keeps; created on first start."""

    auth: Literal["off", "on"] = "off"
    """Whether callers must show a token; off lets everybody in who can reach the server."""

    oidc_issuer: str = ""
    """URL of an OpenID Connect issuer at which people log in."""

    oidc_client_id: str = ""
    """As which client they do: one for installed programs, with PKCE."""

    oidc_client_secret: str = Field(default="", repr=False)
    """What some issuers call such a program's secret; everybody who logs in gets to know it."""

    oidc_grants: Annotated[tuple[Grant, ...], BeforeValidator(parse_oidc_grants), NoDecode] = Field(
        default=(), json_schema_extra={"metavar": "GROUP=ROLE:NAMESPACE,…"}
    )
    """What members of groups are; `*` is everybody, and every namespace. The first counts."""

    oidc_groups_claim: str = "groups"
    """The claim of ID tokens that names groups."""

    oidc_lifetime: Duration = timedelta(hours=12)
    """How long somebody who has logged in stays so."""

    signing_keys: Annotated[Path | None, BeforeValidator(parse_folder)] = None
    """A file with a KID:SECRET a line that signs agents' keys: the first signs, all verify."""

    key_lifetime: Duration = timedelta(minutes=15)
    """How long an agent's key counts; it gets the next one long before."""

    secret_keys: str = ""
    """Keys that encrypt secrets: a file with a VERSION:KEY a line, or env:VARIABLE."""

    vault_address: str = ""
    """URL of an OpenBao or Vault that keeps the secrets, in place of the database."""

    vault_mount: str = "secret"
    """Where its KV store, version 2, is mounted."""

    vault_token_file: Annotated[Path | None, BeforeValidator(parse_folder)] = None
    """A file with the token for it; read anew for each request."""

    tls_cert: Annotated[Path | None, BeforeValidator(parse_folder)] = None
    """The server's certificate, with its chain, in PEM; both doors are encrypted with it."""

    tls_key: Annotated[Path | None, BeforeValidator(parse_folder)] = None
    """The key of that certificate, in PEM."""

    tls_client_ca: Annotated[Path | None, BeforeValidator(parse_folder)] = None
    """Authority from which every gRPC client must show a certificate; an agent's names it."""

    insecure: bool = False
    """Allow listening beyond this machine although nobody has to log in, or in plain text."""

    grpc_listen: Listen = Address("127.0.0.1", 50051)
    """Where gRPC is served, as HOST:PORT; port 0 takes a free one."""

    http_listen: Listen = Address("127.0.0.1", 8080)
    """Where health, metrics and pages are served, as HOST:PORT; port 0 takes a free one."""

    database_url: str = Field(default_factory=_sqlite_in_data_dir, repr=False)
    """The database: sqlite:///FILE or postgresql+asyncpg://… (default: muster.db in data_dir)."""

    heartbeat_interval: Duration = timedelta(seconds=10)
    """How often an agent reports that it is alive."""

    kill_grace: Duration = timedelta(seconds=10)
    """How long a cancelled or late task may clean up before it is killed."""

    lease: Duration = timedelta(seconds=30)
    """How long a task stays with an agent that has gone silent."""

    deadline_slack: Duration = timedelta(seconds=20)
    """How much later than the agent the server ends a task that runs too long."""

    start_grace: Duration = timedelta(seconds=60)
    """How long agents have to return after a server start before their tasks are lost."""

    claim_to_start: Duration = timedelta(seconds=60)
    """How long an agent has from receiving a task to starting it."""

    infra_retry_limit: Annotated[int, Field(ge=0)] = 3
    """How often a task that was lost with its agent is queued again."""

    retry_backoff: Duration = timedelta(seconds=1)
    """How long a failed task waits before its first retry; each further wait is doubled."""

    retry_backoff_max: Duration = timedelta(seconds=60)
    """The longest wait between two tries of a task."""

    quarantine_after: Count = 3
    """How many failures in a row that are an agent's fault quarantine it."""

    quarantine: Duration = timedelta(seconds=10)
    """How long such an agent gets no work; each further failure doubles it."""

    quarantine_max: Duration = timedelta(hours=1)
    """The longest quarantine."""

    log_settle: Duration = timedelta(seconds=2)
    """How long late lines of an ended v1 task are waited for before its log counts as complete."""

    log_incomplete_after: Duration = timedelta(seconds=60)
    """How long an ended task's missing lines are waited for before the log is called incomplete."""

    log_limit: Count = 1024 * 1024 * 1024
    """How many bytes of a task's log are kept at most: the beginning and the end of longer ones."""

    log_blobs: Annotated[Path | Bucket | None, BeforeValidator(parse_place), NoDecode] = Field(
        default=None, json_schema_extra={"metavar": "DIR|s3://BUCKET"}
    )
    """A folder, or S3, that all servers on a PostgreSQL database share: closed logs move there."""

    log_archive: Annotated[Path | Bucket | None, BeforeValidator(parse_place), NoDecode] = Field(
        default=None, json_schema_extra={"metavar": "DIR|s3://BUCKET"}
    )
    """Where closed logs are written as lines of JSON, by day, hour and level: a folder or S3."""

    schedule_file: Annotated[Path | None, BeforeValidator(parse_folder)] = Field(
        default=None, json_schema_extra={"metavar": "FILE"}
    )
    """A file of schedules, TOML or YAML: the server keeps its schedules as it says."""

    artifact_home: Annotated[Path | Bucket | None, BeforeValidator(parse_place), NoDecode] = Field(
        default=None, json_schema_extra={"metavar": "DIR|s3://BUCKET"}
    )
    """Where artifacts are kept; the default is a folder in data_dir."""

    artifact_role: str = Field(default="", json_schema_extra={"metavar": "ARN"})
    """A role of the store's, of which producers with upload grants may borrow credentials (STS)."""

    artifact_limit: Annotated[int, Field(ge=0)] = 0
    """Bytes that one artifact may have; 0 is no limit."""

    artifact_quota: Annotated[int, Field(ge=0)] = 0
    """Bytes of artifacts that each namespace may keep; 0 is no limit."""

    http_url: str = ""
    """What the server's HTTP URLs begin with, for agents and people; else made of http_listen."""

    plugin_home: Annotated[
        Path | Bucket | Registry | None, BeforeValidator(parse_plugin_home), NoDecode
    ] = Field(default=None, json_schema_extra={"metavar": "DIR|s3://BUCKET|oci://HOST/REPOSITORY"})
    """Where published plugins are kept; the default is a folder in data_dir."""

    plugin_keys: Annotated[tuple[Path, ...], BeforeValidator(parse_files), NoDecode] = Field(
        default=(), json_schema_extra={"metavar": "FILE,…"}
    )
    """Public keys (minisign's): a plugin that is signed has to be by one of them."""

    require_signed_plugins: bool = False
    """Take only plugins that one of plugin_keys has signed."""

    log_retention: AnyDuration = timedelta(0)
    """How long logs are kept after their task's end; with 0 as long as the task."""

    log_retention_bytes: Annotated[int, Field(ge=0)] = 0
    """How many bytes of logs are stored at most: the oldest ended ones go first; 0 is no limit."""

    log_quota: Annotated[int, Field(ge=0)] = 0
    """How many bytes of logs each namespace keeps at most, in the same way; 0 is no limit."""

    task_retention: Duration = timedelta(days=30)
    """How long ended tasks are kept, with their attempts and logs."""

    task_retention_count: Count = 1_000_000
    """How many ended tasks are kept at most."""

    event_retention: Duration = timedelta(days=7)
    """How long events are kept."""

    event_retention_count: Count = 5_000_000
    """How many events are kept at most."""

    audit_retention: Duration = timedelta(days=365)
    """How long entries of the audit log are kept."""

    rate_limit: Annotated[float, Field(ge=0)] = 0
    """How many calls a second one caller may make, agents aside; 0 is no limit."""

    rate_burst: Annotated[int, Field(ge=0)] = 0
    """How many it may make at once before that counts; 0 is a second's worth."""

    stream_limit: Annotated[int, Field(ge=0)] = 1000
    """How many streams one caller may have open, agents aside; 0 is no limit."""

    queue_limit: Annotated[int, Field(ge=0)] = 0
    """How many tasks may wait in a namespace; 0 is no limit."""

    writer_queue: Count = 10_000
    """How many changes may wait to be written before new work is refused."""

    writer_batch: Count = 1_000
    """How many changes go into one transaction at most."""

    shutdown_grace: Duration = timedelta(seconds=10)
    """How long running calls may take to end when the server stops."""

    max_receive_bytes: Count = 16 * 1024 * 1024
    """The largest gRPC message taken from a client, in bytes."""

    accept_compressed: bool = False
    """Take compressed gRPC messages too; a few bytes that unpack to many hold up others' calls."""

    max_send_bytes: Count = 16 * 1024 * 1024
    """The largest gRPC message sent to a client, in bytes."""

    log_level: Level = "info"
    """The least severe messages the server logs."""

    log_levels: Annotated[dict[str, Level], BeforeValidator(parse_module_levels), NoDecode] = Field(
        default_factory=dict
    )
    """Levels of modules that are not to have log_level: server.engine=debug,sqlalchemy=info."""

    log_file: Annotated[Path | None, BeforeValidator(parse_folder)] = None
    """A file to which messages are written too, as JSON; without it they go to stderr alone."""

    log_file_bytes: Count = 50 * 1024 * 1024
    """How large the file may become before a new one is begun."""

    log_file_count: Count = 5
    """How many older files are kept."""

    log_format: Format = "auto"
    """How messages are written to stderr; auto is console on a terminal and json elsewhere."""

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file, or None where the database is PostgreSQL."""
        if self.database_url.startswith(SQLITE):
            return Path(self.database_url.removeprefix(SQLITE))
        return None

    @property
    def log_folder(self) -> Path | None:
        """Where logs are kept: beside the SQLite file; None where the database is PostgreSQL."""
        file = self.sqlite_file
        return file.with_suffix(LOG_SUFFIX) if file is not None else None

    @field_validator("artifact_role")
    @classmethod
    def _is_a_role_of_a_bucket(cls, role: str, info: ValidationInfo) -> str:
        if role and not ROLE.fullmatch(role):
            raise ValueError(f"{role} should be like arn:aws:iam::ACCOUNT:role/NAME")
        if role and not isinstance(info.data.get("artifact_home"), Bucket):
            raise ValueError(f"belongs to an artifact_home of {SCHEME}BUCKET/PREFIX")
        return role

    @field_validator("oidc_client_id")
    @classmethod
    def _comes_with_its_issuer(cls, client_id: str, info: ValidationInfo) -> str:
        issuer = info.data.get("oidc_issuer", "")
        if bool(issuer) is not bool(client_id):
            raise ValueError("belongs to oidc_issuer, and that to it")
        host = urlsplit(issuer)
        if issuer and host.scheme != "https" and host.hostname not in LOOPBACK_NAMES:
            raise ValueError(f"{issuer} should be https")
        return client_id

    @field_validator("vault_token_file")
    @classmethod
    def _comes_with_its_address(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if (file is None) is not (not info.data.get("vault_address")):
            raise ValueError("belongs to vault_address, and that to it")
        return file

    @field_validator("tls_key", "tls_client_ca")
    @classmethod
    def _belongs_to_a_certificate(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if (file is not None) and info.data.get("tls_cert") is None:
            raise ValueError("belongs to a certificate; name it with tls_cert")
        if info.field_name == "tls_key" and file is None and info.data.get("tls_cert") is not None:
            raise ValueError("is missing; the certificate in tls_cert needs its key")
        return file

    @field_validator("grpc_listen", "http_listen")
    @classmethod
    def _stays_on_this_machine(cls, address: Address, info: ValidationInfo) -> Address:
        if address.is_loopback or info.data.get("insecure", True):
            return address
        if info.data.get("auth") == "on" and info.data.get("tls_cert") is not None:
            return address
        danger = (
            "nobody has to log in" if info.data.get("auth") == "off" else "nothing is encrypted"
        )
        raise ValueError(
            f"{address} can be reached from other machines and {danger};"
            " say --insecure if that is meant"
        )

    @field_validator("database_url")
    @classmethod
    def _is_a_database_we_know(cls, url: str) -> str:
        if url.startswith(POSTGRESQL) or not url:
            return url
        if url.startswith(SQLITE) and url.removeprefix(SQLITE) not in {"", ":memory:"}:
            return url
        raise ValueError(f"should be {SQLITE}FILE or {POSTGRESQL}USER@HOST/DATABASE")

    @field_validator("log_blobs")
    @classmethod
    def _is_shared_by_servers(
        cls, folder: Path | Bucket | None, info: ValidationInfo
    ) -> Path | Bucket | None:
        if folder is None or not info.data.get("database_url", "").startswith(SQLITE):
            return folder
        raise ValueError("is for PostgreSQL; the logs of an SQLite file lie beside it")

    @field_validator("log_archive")
    @classmethod
    def _is_a_place_of_its_own(
        cls, folder: Path | Bucket | None, info: ValidationInfo
    ) -> Path | Bucket | None:
        url, taken = info.data.get("database_url", ""), info.data.get("log_blobs")
        if url.startswith(SQLITE):
            taken = Path(url.removeprefix(SQLITE)).with_suffix(LOG_SUFFIX)
        if not isinstance(folder, Path) or not isinstance(taken, Path):
            return folder
        if folder.is_relative_to(taken):
            raise ValueError(f"should lie outside {taken}, where the server keeps its logs")
        return folder

    @field_validator("lease")
    @classmethod
    def _leaves_time_to_stop(cls, lease: timedelta, info: ValidationInfo) -> timedelta:
        """Between two heartbeats no task may be due to stop because its lease could end."""
        heartbeat = info.data.get("heartbeat_interval", timedelta(0))
        seconds = math.ceil(info.data.get("kill_grace", timedelta(0)).total_seconds())
        least = heartbeat + STOP_MARGIN + min(timedelta(seconds=seconds), LONGEST_LEASE_GRACE)
        if lease > least:
            return lease
        raise ValueError(
            f"should be longer than {least.total_seconds():g} s: heartbeat_interval, kill_grace"
            f" ({LONGEST_LEASE_GRACE.seconds} s of it at most) and {STOP_MARGIN.seconds} s more, so"
            " that tasks can be stopped before it ends"
        )

    @field_validator("retry_backoff_max", "quarantine_max")
    @classmethod
    def _is_no_less_than_the_first(cls, longest: timedelta, info: ValidationInfo) -> timedelta:
        first = str(info.field_name).removesuffix("_max")
        if longest >= info.data.get(first, timedelta(0)):
            return longest
        raise ValueError(f"should be no less than {first}")
