"""Builds every room and runs them together: the only place that knows them all."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket
from tempfile import TemporaryFile

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.artifact.v1 import artifact_pb2, artifact_pb2_grpc
from generated.audit.v1 import audit_pb2, audit_pb2_grpc
from generated.auth.v1 import auth_pb2, auth_pb2_grpc
from generated.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from generated.hook.v1 import hook_pb2, hook_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.schedule.v1 import schedule_pb2, schedule_pb2_grpc
from generated.secret.v1 import secret_pb2, secret_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc
from plugins import bundled
from plugins.package.refusal import PackageRefused
from plugins.package.signature import PublicKey, parse_public_key, read_text
from server.address import Address
from server.auth import Authenticator, Open
from server.authenticator import TokenAuthenticator
from server.config import Settings
from server.definition.expression import CelExpressions
from server.definition.times import CronTimes
from server.domain.errors import StoreUnavailable
from server.domain.moment import millis
from server.domain.policy import Policy
from server.engine import event_feed
from server.engine.artifact_sweep import ArtifactSweep
from server.engine.artifacts import Artifacts
from server.engine.artifacts import Limits as ArtifactLimits
from server.engine.attendance import Attendance
from server.engine.backlog_gauge import BacklogGauge
from server.engine.call_limits import CallLimits, QueueLimit
from server.engine.catalog import Catalog
from server.engine.clock import Clock
from server.engine.deliveries import Deliveries
from server.engine.delivery_runner import DeliveryRunner
from server.engine.dispatcher import Dispatcher
from server.engine.event_feed import EventFeed
from server.engine.event_tail import EventTail
from server.engine.explainer import Explainer
from server.engine.fleet import Fleet
from server.engine.group_sweep import GroupSweep
from server.engine.lease_keeper import LeaseKeeper
from server.engine.log_archiver import LogArchiver
from server.engine.log_hub import LogHub
from server.engine.log_intake import JournalIntake, RowIntake
from server.engine.log_retention import LogLimits, LogRetention
from server.engine.log_sealer import LogSealer
from server.engine.measurements import Measurements
from server.engine.plugin_shelf import PluginShelf
from server.engine.retention import Limits, Retention
from server.engine.row_sealer import RowSealer
from server.engine.schedule_file import ScheduleFile
from server.engine.sessions import Sessions
from server.engine.timers import Timers
from server.engine.token_uses import TokenUses
from server.engine.url_signer import UrlSigner
from server.engine.write_watch import WriteWatch
from server.engine.writer import Writer
from server.issuer import Issuer
from server.oidc import OidcIssuer
from server.private_file import make_private
from server.rpc.agent_service import AgentService
from server.rpc.artifact_service import ArtifactService
from server.rpc.audit_service import AuditService
from server.rpc.auth_service import AuthService
from server.rpc.catalog_service import CatalogService
from server.rpc.handover import Handover
from server.rpc.hook_service import HookService
from server.rpc.interceptors import CallInterceptor
from server.rpc.pipeline_service import PipelineService
from server.rpc.schedule_service import ScheduleService
from server.rpc.secret_service import SecretService
from server.rpc.secure_port import server_credentials
from server.rpc.stream_service import StreamService
from server.rpc.task_secrets import TaskSecrets
from server.rpc.task_service import TaskService
from server.sealing import Sealer, load_keys
from server.secret_rewrapper import SecretRewrapper
from server.secret_store import OwnSecrets, SecretStore, VaultSecrets
from server.signing import KEY_FILE, SigningKeys
from server.stores.blobs.folder import FolderBlobs
from server.stores.blobs.place import Bucket, open_place
from server.stores.interfaces import BlobStore, ObjectStore
from server.stores.log_journal import LogJournal
from server.stores.objects.folder import FolderObjects
from server.stores.plugin_homes.place import open_home
from server.stores.sql.database import open_url
from server.stores.sql.reader import SqlReader
from server.tls import ServerCertificate, TlsFiles
from server.web.app import build
from server.web.artifacts import ArtifactDoor
from server.web.guard import Guard
from server.web.hooks import HookDoor
from server.web.serve import WebServer, address_of, bind
from server.web.uploads import UploadDoor

SERVICES = [
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (agent_pb2, "AgentService"),
        (artifact_pb2, "ArtifactService"),
        (audit_pb2, "AuditService"),
        (auth_pb2, "AuthService"),
        (catalog_pb2, "CatalogService"),
        (pipeline_pb2, "PipelineService"),
        (hook_pb2, "HookService"),
        (schedule_pb2, "ScheduleService"),
        (secret_pb2, "SecretService"),
        (stream_pb2, "StreamService"),
        (task_pb2, "TaskService"),
    )
]

URL_KEY_FILE = "url.key"
"""In data_dir, where no other key is there: signs URLs while auth is off."""

STREAMS_A_CONNECTION = 10_000
"""Calls under way on one connection; a proxy's carries those of many."""

log = structlog.get_logger(__name__)


def policy_of(settings: Settings) -> Policy:
    """Return the settings that the rules go by."""
    return Policy(
        heartbeat_interval=millis(settings.heartbeat_interval),
        lease=millis(settings.lease),
        kill_grace=millis(settings.kill_grace),
        deadline_slack=millis(settings.deadline_slack),
        claim_to_start=millis(settings.claim_to_start),
        infra_retry_limit=settings.infra_retry_limit,
        retry_backoff=millis(settings.retry_backoff),
        retry_backoff_limit=millis(settings.retry_backoff_max),
        quarantine_after=settings.quarantine_after,
        quarantine=millis(settings.quarantine),
        quarantine_limit=millis(settings.quarantine_max),
        log_settle=millis(settings.log_settle),
        log_incomplete_after=millis(settings.log_incomplete_after),
        log_limit=settings.log_limit,
        seal_rows=settings.log_blobs is not None,
        archive_logs=settings.log_archive is not None,
    )


def _encodings(settings: Settings) -> int:
    """Return the encodings of messages that gRPC takes, a bit each: identity, deflate, gzip.

    The thread that reads all calls also unpacks their messages, so that they all wait for one bomb.
    """
    return 0b111 if settings.accept_compressed else 0b001


def _journal(settings: Settings) -> LogJournal | None:
    """Return the journal beside an SQLite file; servers that share a database have none."""
    folder = settings.log_folder
    return LogJournal(folder / "journal") if folder is not None else None


def _blobs(settings: Settings) -> BlobStore | None:
    if settings.log_blobs is not None:
        return open_place(settings.log_blobs)
    folder = settings.log_folder
    return FolderBlobs(folder / "blobs") if folder is not None else None


def _certificate(settings: Settings) -> ServerCertificate | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerCertificate(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))


def _oidc(settings: Settings, clock: Clock) -> OidcIssuer | None:
    if not settings.oidc_issuer:
        return None
    return OidcIssuer(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_grants,
        settings.oidc_groups_claim,
        clock,
        settings.oidc_client_secret,
    )


def _secret_sealer(settings: Settings) -> Sealer | None:
    """Return what encrypts secrets; None where servers share a database and no key.

    Raises:
        OSError: the keys cannot be read, or are malformed.
    """
    alone = settings.sqlite_file is not None
    keys = load_keys(settings.secret_keys, settings.data_dir, make=alone)
    return Sealer(keys) if keys else None


def _objects(place: Path | Bucket, role: str) -> ObjectStore:
    if isinstance(place, Path):
        return FolderObjects(place)
    from server.stores.objects.s3 import S3Objects  # late: slow to import, and an extra

    return S3Objects(place, role)


def _plugin_keys(settings: Settings) -> tuple[PublicKey, ...]:
    """Return the keys that sign plugins.

    Raises:
        OSError: one cannot be read, or none is named though all plugins have to be signed.
    """
    if settings.require_signed_plugins and not settings.plugin_keys:
        raise OSError("--require-signed-plugins needs --plugin-keys")
    try:
        return tuple(parse_public_key(read_text(file)) for file in settings.plugin_keys)
    except PackageRefused as error:
        raise OSError(f"--plugin-keys: {error}") from None


def _check_folder(setting: str, folder: Path | Bucket | None) -> None:
    """Make a folder that is missing; a bucket may come and go like a network.

    Raises:
        OSError: nothing can be written there.
    """
    if not isinstance(folder, Path):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        name = setting.replace("_", "-")
        raise OSError(f"cannot write to --{name} {folder}: {error.strerror}") from error


class App:
    """One server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        policy = policy_of(settings)
        clock = Clock()
        self._database = open_url(settings.database_url)
        self._journal = _journal(settings)
        self._blobs = _blobs(settings)
        self._reader = SqlReader(self._database, self._journal, self._blobs)
        self._sessions = Sessions()
        self._dispatcher = Dispatcher(self._sessions, clock)
        self._writer = Writer(
            self._database,
            clock,
            policy,
            self._dispatcher,
            batch_limit=settings.writer_batch,
            queue_limit=settings.writer_queue,
            expressions=CelExpressions(),
            times=CronTimes(),
        )
        self._write_watch = WriteWatch(self._writer, clock)
        self._dispatcher.kick = self._writer.kick
        measurements = Measurements()
        self._attendance = Attendance(
            self._writer, self._sessions, self._dispatcher, clock, policy, measurements
        )
        self._fleet = Fleet(self._sessions)
        self._fleet.show()
        self._backlog = BacklogGauge(self._dispatcher, self._reader, clock)
        self._hints = self._database.hints
        self._keeper = LeaseKeeper(
            self._writer,
            self._reader,
            self._sessions,
            clock,
            settings.lease,
            settings.start_grace,
            measurements,
        )
        self._retention = Retention(
            self._writer,
            self._reader,
            clock,
            Limits(
                settings.task_retention,
                settings.task_retention_count,
                settings.event_retention,
                settings.event_retention_count,
                settings.audit_retention,
            ),
        )
        self._log_retention = LogRetention(
            self._writer,
            self._reader,
            clock,
            LogLimits(
                settings.log_retention,
                settings.log_retention_bytes,
                settings.log_quota,
                shared=self._journal is None,
            ),
        )
        self._archiver = self._build_archiver()
        self._row_sealer = self._build_row_sealer(clock)
        self._timers = Timers(self._writer, self._reader, clock)
        self._groups = GroupSweep(self._writer)
        self._feed = EventFeed(self._reader)
        self._logs = LogHub(self._reader)
        self._intake = self._build_intake(clock)
        self._sealer = self._build_sealer(clock)
        self._tail = EventTail(self._reader)
        self._certificate = _certificate(settings)
        self._token_uses = TokenUses(self._writer, clock)
        self._signing_keys: SigningKeys | None = None
        self._issuer: Issuer | None = None
        self._authenticator = self._build_authenticator(clock)
        self._connect_rooms()
        self._secret_sealer = _secret_sealer(settings)
        self._secrets = self._build_secrets()
        self._deliveries = Deliveries(
            self._writer, self._reader, clock, self._secrets.values, self._blobs
        )
        self._delivery_runner = DeliveryRunner(
            self._writer, self._reader, self._deliveries, clock, millis(settings.event_retention)
        )
        self._writer.listen(self._delivery_runner.committed)
        self._artifacts = self._build_artifacts(clock)
        self._artifact_sweep = ArtifactSweep(
            self._writer, self._reader, self._artifacts.store, clock
        )
        self._health = health.aio.HealthServicer()
        self._grpc = self._build_grpc(clock, policy, measurements)

    def _connect_rooms(self) -> None:
        """Let each room hear of what is committed: here, and by others on a shared database."""
        for room in (self._dispatcher, self._attendance, self._timers, self._logs, self._groups):
            self._writer.listen(room.committed)
        if not self._hints.shared:
            self._writer.listen(self._feed.committed)
            return
        self._writer.listen(self._tail.committed)
        self._writer.listen(lambda committed: self._hints.say(committed.effects.log_tasks))
        self._tail.tell_every(self._feed.tell)
        self._tail.tell_foreign(self._dispatcher.told)
        self._tail.tell_foreign(self._attendance.told)

    def _heard(self, log_tasks: list[str]) -> None:
        self._logs.hint(log_tasks)
        self._tail.hint()

    @property
    def _signing_file(self) -> Path:
        return self._settings.signing_keys or self._settings.data_dir / KEY_FILE

    def _open_signing_keys(self) -> None:
        """Read the secrets that sign agents' keys; make one where this server is the only one.

        Raises:
            OSError: they cannot be read, or servers that share a database have none in common.
        """
        if self._signing_keys is None:
            return
        alone = self._settings.sqlite_file is not None
        if not alone and self._settings.signing_keys is None:
            raise OSError(
                "servers that share a database sign with the same secrets: name a file that all "
                "of them have with --signing-keys"
            )
        self._signing_keys.open(make=self._settings.signing_keys is None)

    def _build_secrets(self) -> SecretStore:
        settings = self._settings
        if settings.vault_address and settings.vault_token_file is not None:
            return VaultSecrets(
                settings.vault_address, settings.vault_mount, settings.vault_token_file
            )
        return OwnSecrets(self._writer, self._reader, self._secret_sealer)

    def _build_authenticator(self, clock: Clock) -> Authenticator:
        if self._settings.auth == "off":
            return Open()
        self._signing_keys = SigningKeys(self._signing_file, clock)
        authenticator = TokenAuthenticator(
            self._reader, clock, self._token_uses, self._signing_keys
        )
        lifetime = millis(self._settings.key_lifetime)
        self._issuer = Issuer(self._signing_keys, self._reader, clock, lifetime)
        self._writer.listen(authenticator.committed)
        return authenticator

    def _build_intake(self, clock: Clock) -> RowIntake | JournalIntake:
        if self._journal is None:
            return RowIntake(self._writer)
        intake = JournalIntake(self._writer, self._journal, clock, self._logs.grew)
        self._writer.listen(intake.committed)
        return intake

    def _build_sealer(self, clock: Clock) -> LogSealer | None:
        if self._journal is None or self._blobs is None:
            return None
        limit = self._settings.log_limit
        sealer = LogSealer(self._writer, self._reader, self._journal, self._blobs, clock, limit)
        self._writer.listen(sealer.committed)
        return sealer

    def _build_row_sealer(self, clock: Clock) -> RowSealer | None:
        if self._journal is not None or self._blobs is None:
            return None
        return RowSealer(self._writer, self._reader, self._blobs, clock)

    def _build_artifacts(self, clock: Clock) -> Artifacts:
        settings = self._settings
        return Artifacts(
            self._writer,
            self._reader,
            _objects(
                settings.artifact_home or settings.data_dir / "artifacts", settings.artifact_role
            ),
            UrlSigner(self._url_keys, clock),
            clock,
            ArtifactLimits(settings.artifact_limit, settings.artifact_quota),
        )

    def _url_keys(self) -> list[bytes]:
        """Return the secrets that sign URLs of this server's own door."""
        if self._signing_keys is not None:
            return self._signing_keys.secrets()
        file = self._settings.data_dir / URL_KEY_FILE
        if not file.exists():
            make_private(file, secrets.token_urlsafe(32))
        return [file.read_bytes()]

    def _build_catalog(self) -> Catalog:
        settings = self._settings
        home = open_home(settings.plugin_home or settings.data_dir / "plugins")
        shelf = PluginShelf(settings.data_dir / "plugin-shelf", home)
        shelf.clear()
        return Catalog(self._reader, shelf, bundled.manifests())

    def _build_archiver(self) -> LogArchiver | None:
        place = self._settings.log_archive
        if place is None:
            return None
        return LogArchiver(self._writer, self._reader, open_place(place))

    def _build_grpc(
        self, clock: Clock, policy: Policy, measurements: Measurements
    ) -> grpc.aio.Server:
        settings = self._settings
        limits = CallLimits(settings.rate_limit, settings.rate_burst, settings.stream_limit)
        server = grpc.aio.server(
            interceptors=[
                CallInterceptor(
                    self._authenticator,
                    limits=limits,
                    asks_certificates=settings.tls_client_ca is not None,
                )
            ],
            options=[
                ("grpc.so_reuseport", 0),  # else a second server would share the port silently
                ("grpc.max_receive_message_length", settings.max_receive_bytes),
                ("grpc.max_send_message_length", settings.max_send_bytes),
                ("grpc.compression_enabled_algorithms_bitset", _encodings(settings)),
                # Agents ping idle streams; without a floor their pings end in ENHANCE_YOUR_CALM.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", 30_000),
                # Who connects and says nothing is let go.
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.max_concurrent_streams", STREAMS_A_CONNECTION),
            ],
        )
        catalog = self._build_catalog()
        handover = Handover(
            policy,
            self._writer,
            self._issuer,
            self._secrets,
            self._secret_sealer,
            catalog,
            self._artifacts,
            encrypted=self._certificate is not None,
        )
        agents = AgentService(
            self._writer,
            self._intake,
            self._reader,
            self._attendance,
            self._dispatcher,
            clock,
            policy,
            self._issuer,
            handover,
            catalog,
        )
        streams = StreamService(
            self._writer,
            self._intake,
            self._reader,
            self._attendance,
            self._dispatcher,
            self._feed,
            self._logs,
            clock,
            policy,
            measurements,
            self._issuer,
            handover,
        )
        isolated = settings.auth == "on"
        explainer = Explainer(self._reader, self._sessions, clock, policy, isolated=isolated)
        task_secrets = TaskSecrets(self._secrets, self._secret_sealer)
        tasks = TaskService(
            self._writer,
            self._reader,
            explainer,
            clock,
            task_secrets,
            QueueLimit(self._reader, settings.queue_limit),
            self._artifacts,
        )
        hook_pb2_grpc.add_HookServiceServicer_to_server(
            HookService(self._writer, self._reader, self._deliveries), server
        )
        schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(
            ScheduleService(
                self._writer,
                self._reader,
                clock,
                CronTimes(),
                QueueLimit(self._reader, settings.queue_limit),
            ),
            server,
        )
        secret_pb2_grpc.add_SecretServiceServicer_to_server(
            SecretService(self._secrets, self._writer), server
        )
        artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(
            ArtifactService(self._artifacts, self._writer, self._reader, clock), server
        )
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(
            CatalogService(
                catalog,
                self._writer,
                _plugin_keys(settings),
                signed_only=settings.require_signed_plugins,
            ),
            server,
        )
        pipelines = PipelineService(
            self._writer, self._reader, clock, QueueLimit(self._reader, settings.queue_limit)
        )
        agent_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
        audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(self._reader), server)
        auth = AuthService(
            self._writer,
            self._reader,
            clock,
            _oidc(settings, clock),
            millis(settings.oidc_lifetime),
        )
        auth_pb2_grpc.add_AuthServiceServicer_to_server(auth, server)
        pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(pipelines, server)
        stream_pb2_grpc.add_StreamServiceServicer_to_server(streams, server)
        task_pb2_grpc.add_TaskServiceServicer_to_server(tasks, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            [*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        return server

    def stop(self) -> None:
        """Let `serve` end gracefully."""
        self._stop.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[Address, Address]]:
        """Serve; give the addresses where gRPC and HTTP answer.

        Raises:
            OSError: an address is taken, or a folder cannot be used.
        Also what `SqliteDatabase.open` raises.
        """
        for flag in ("log_blobs", "log_archive"):
            _check_folder(flag, getattr(self._settings, flag))
        self._open_signing_keys()
        if self._certificate is not None:
            self._certificate.open()
        await self._database.open()
        try:
            await self._take_blobs()
            if self._journal is not None:
                await self._journal.open()
            bound = self._bind_http()
            self._artifacts.signer.base = self._http_url(address_of(bound))
            web = WebServer(
                Guard(
                    build(
                        self._readiness,
                        self._look,
                        HookDoor(self._deliveries),
                        ArtifactDoor(self._artifacts),
                        UploadDoor(self._artifacts),
                    ),
                    self._authenticator,
                ),
                bound,
                self._settings.shutdown_grace,
                self._certificate,
            )
            grpc_address = self._listen()
            await self._dispatcher.start(self._reader)
            await self._keeper.start()
            await self._begin_feed(await self._tail.start())
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._writer.run(), name="writer")
                loops = [
                    tasks.create_task(
                        self._dispatcher.run(self._reader, self._writer, shared=self._hints.shared)
                    ),
                    tasks.create_task(self._keeper.run(), name="lease keeper"),
                    tasks.create_task(self._timers.run(), name="timers"),
                    tasks.create_task(self._delivery_runner.run(), name="delivery runner"),
                    tasks.create_task(self._token_uses.run(), name="token uses"),
                    tasks.create_task(self._retention.run(), name="retention"),
                    tasks.create_task(self._log_retention.run(), name="log retention"),
                    tasks.create_task(self._artifact_sweep.run(), name="artifact sweep"),
                    tasks.create_task(
                        self._groups.run(shared=self._hints.shared), name="group sweep"
                    ),
                ]
                journaling = None
                if self._journal is not None and isinstance(self._intake, JournalIntake):
                    journaling = tasks.create_task(self._journal.run(), name="journal")
                    loops.append(tasks.create_task(self._intake.run(), name="log intake"))
                    closed = await self._intake.recover()
                    if self._sealer is not None:
                        self._sealer.add(closed)
                        loops.append(tasks.create_task(self._sealer.run(), name="log sealer"))
                if self._secret_sealer is not None:
                    rewrapper = SecretRewrapper(self._writer, self._reader, self._secret_sealer)
                    loops.append(tasks.create_task(rewrapper.run(), name="secret rewrapper"))
                if self._row_sealer is not None:
                    loops.append(tasks.create_task(self._row_sealer.run(), name="row sealer"))
                if self._archiver is not None:
                    loops.append(tasks.create_task(self._archiver.run(), name="log archiver"))
                if self._settings.schedule_file is not None:
                    schedules = ScheduleFile(self._settings.schedule_file, self._writer)
                    loops.append(tasks.create_task(schedules.run(), name="schedule file"))
                if self._hints.shared:
                    loops.append(tasks.create_task(self._tail.run(), name="event tail"))
                    loops.append(tasks.create_task(self._hints.run(self._heard), name="hints"))
                serving_web = tasks.create_task(web.run(), name="web")
                await web.started()
                await self._grpc.start()
                await self._set_health(serving=True)
                try:
                    yield grpc_address, address_of(bound)
                finally:
                    await self._close_doors()
                    for loop in loops:
                        loop.cancel()
                    if isinstance(self._intake, JournalIntake):
                        await self._intake.finish()
                    self._writer.stop()
                    await writing
                    await self._end_journal(journaling)
                    web.stop()
                    await serving_web
        finally:
            await self._secrets.close()
            await self._database.close()

    async def _take_blobs(self) -> None:
        """See that the shared place is this database's: what no row speaks of is deleted there.

        Raises:
            OSError: it is another's.
        """
        place = self._settings.log_blobs
        if place is None or self._blobs is None:
            return
        try:
            taken = await self._blobs.take(await self._reader.database_id())
        except StoreUnavailable as error:
            raise OSError(f"--log-blobs: {error}") from error
        if not taken:
            raise OSError(f"--log-blobs {place} belongs to another database")

    async def _end_journal(self, journaling: asyncio.Task[None] | None) -> None:
        if self._journal is not None and journaling is not None:
            self._journal.stop()
            await journaling
            await self._journal.close()

    async def _begin_feed(self, position: int) -> None:
        """Keep the last events at hand: after a start, readers come back for a few they missed."""
        after = max(0, position - event_feed.PAGE)
        recent = await self._reader.events(after, event_feed.PAGE)
        self._feed.begin(position, [event for event in recent if event.position <= position])

    def _http_url(self, bound: Address) -> str:
        if self._settings.http_url:
            return self._settings.http_url.rstrip("/")
        return f"{'http' if self._certificate is None else 'https'}://{bound}"

    def _bind_http(self) -> socket:
        wanted = self._settings.http_listen
        try:
            return bind(wanted)
        except OSError as error:
            raise OSError(f"cannot listen on {wanted} for HTTP: {error.strerror}") from error

    def _listen(self) -> Address:
        wanted = self._settings.grpc_listen
        try:
            bind(wanted).close()  # gRPC would say in C++ what is wrong
            if self._certificate is None:
                port = self._grpc.add_insecure_port(str(wanted))
            else:
                port = self._grpc.add_secure_port(
                    str(wanted), server_credentials(self._certificate)
                )
        except OSError as error:
            raise OSError(f"cannot listen on {wanted} for gRPC: {error.strerror}") from error
        except RuntimeError as error:
            raise OSError(f"cannot listen on {wanted} for gRPC: is the port taken?") from error
        return Address(wanted.host, port)

    async def _look(self) -> None:
        self._fleet.look()
        await self._backlog.look()

    async def _readiness(self) -> str | None:
        if self._stop.is_set():
            return "shutting down"
        try:
            await self._reader.ping()
        except StoreUnavailable as error:
            return str(error)
        return await self._write_watch.failure()

    async def _close_doors(self) -> None:
        """Say that we go, end what waits, and let the rest finish."""
        await self._set_health(serving=False)
        self._sessions.stop()
        self._logs.stop()
        self._feed.stop()
        await self._grpc.stop(self._settings.shutdown_grace.total_seconds())

    async def _set_health(self, *, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for service in ("", *SERVICES):
            await self._health.set(service, states.SERVING if serving else states.NOT_SERVING)

    async def serve_until_stopped(self) -> None:
        """Wait for `stop`."""
        await self._stop.wait()
