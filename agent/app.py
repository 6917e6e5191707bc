"""Builds the session process and runs it: the only place where its parts meet."""

import asyncio
import signal
import sys

import click
import httpx2
import structlog

from agent.abilities import Abilities, usable
from agent.artifacts.fetching import Fetcher
from agent.artifacts.transfer import open_client
from agent.artifacts.uploading import Uploader
from agent.board import Board
from agent.config import Settings
from agent.confining import open_the_way
from agent.control_plane import ControlPlane
from agent.credential import Credential, CredentialError
from agent.data_dir import DataDir, InUseError
from agent.drain import Drain
from agent.heartbeat import Heartbeat
from agent.kept_workspaces import KeptWorkspaces
from agent.outbox import Outbox
from agent.plugin_cache import PluginCache
from agent.plugin_fetching import PluginFetcher
from agent.preparing import Preparer
from agent.room import Room
from agent.session import RefusedError, Session, SupersededError
from agent.spool import Spool
from agent.supervisor_link import SupervisorLink
from agent.workspace_quota import WorkspaceQuota
from plugins import bundled
from servicelog.setup import configure

_SUPERSEDED_STOP_SECONDS = 30.0

_log = structlog.get_logger("agent")


def run(settings: Settings) -> int:
    """Runs the agent until it is told to stop, and returns its exit code."""
    _set_up_log(settings)
    data_dir = DataDir(settings.data_dir)
    try:
        settings.all_labels()
        data_dir.claim()
        Spool(settings.data_dir).create()
        open_the_way(settings.data_dir, settings.confinement.get("user", ""))
        agent_id = data_dir.agent_id(settings.name)
        credential = Credential(settings.data_dir, settings.enrolment)
        _check_safe(settings, credential)
    except CredentialError as error:
        raise click.ClickException(str(error)) from error
    except InUseError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"data directory: {error}") from error
    try:
        return asyncio.run(_App(settings, agent_id, credential).run())
    finally:
        data_dir.release()


def _check_safe(settings: Settings, credential: Credential) -> None:
    """Refuses to show tokens to whoever listens in.

    Raises:
        click.ClickException: The connection is to another machine and in plain text.
    """
    if credential.any and settings.tls is None and not (settings.stays_here or settings.insecure):
        raise click.ClickException(
            f"the agent's token would go to {settings.server} in plain text; encrypt with --tls-ca"
            " FILE or --tls, or say --insecure if that is meant"
        )


def _set_up_log(settings: Settings) -> None:
    try:
        configure(
            settings.log_level,
            settings.log_format,
            levels=settings.log_levels,
            file=settings.log_file,
        )
    except OSError as error:
        raise click.ClickException(f"log file: {error}") from error


class _App:
    """The parts of one session process."""

    def __init__(self, settings: Settings, agent_id: str, credential: Credential) -> None:
        self._settings = settings
        self._credential = credential
        self._agent_id = agent_id
        self._announced = False

    async def run(self) -> int:
        confines = bool(self._settings.confinement)
        link = SupervisorLink(
            self._settings.data_dir, confines=confines, tells=self._settings.told_to_tasks()
        )
        async with asyncio.TaskGroup() as group:
            outbox = Outbox()
            spool = Spool(self._settings.data_dir)
            room = Room(spool, group)
            plane = ControlPlane(self._settings, self._agent_id, self._credential)
            client = open_client(self._settings.tls.ca if self._settings.tls else None)
            cache = self._plugin_cache(plane, client)
            preparer = Preparer(
                self._settings.data_dir,
                cache,
                usable(),
                Fetcher(client),
                self._settings.allowed,
            )
            kept = KeptWorkspaces(
                self._settings.data_dir,
                self._settings.workspace_keep,
                self._settings.workspace_spare_disk,
            )
            board = Board(
                spool,
                self._settings.slots,
                outbox,
                link.tell,
                room,
                group,
                allowed=self._settings.allowed,
                trusted=self._settings.trusted,
                confinement=self._settings.confinement,
                preparer=preparer,
                collector=Uploader(plane, client, self._settings.data_dir),
                keeper=kept,
                plans=lambda: link.plans,
            )
            heartbeat = Heartbeat()

            def tell_of_room() -> None:
                board.look()
                heartbeat.hurry()

            room.changed = tell_of_room
            link.found, link.says = board.supervisor_found, board.supervisor_says
            session = Session(
                self._settings,
                plane,
                board,
                outbox,
                heartbeat,
                self._announce,
                Abilities(cache, self._settings.confinement.get("user", "")),
            )

            def tell_of_plugins() -> None:
                group.create_task(session.tell_labels())

            cache.changed = tell_of_plugins
            drain = Drain(board, session, heartbeat, self._settings.drain_limit)
            self._handle_signals(drain, session, group)
            linking = group.create_task(link.run())
            sweeping = group.create_task(kept.run())
            measuring = group.create_task(self._quota(board))
            stopping = group.create_task(drain.requested.wait())
            ready = group.create_task(link.ready.wait())
            await asyncio.wait([stopping, ready], return_when=asyncio.FIRST_COMPLETED)
            # What the last supervisor left behind is dealt with before the agent registers. What
            # the last session ordered has begun by now, and has taken its files.
            preparer.clear()
            serving = group.create_task(self._serve(session, board))
            await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
            code = serving.result() if serving.done() else await drain.run()
            link.tell({"kind": "shutdown"})
            await asyncio.sleep(0)
            for task in (serving, stopping, ready):
                task.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await session.close()
            await client.aclose()
            linking.cancel()
            sweeping.cancel()
            measuring.cancel()
            room.close()
        return code

    async def _quota(self, board: Board) -> None:
        if limit := self._settings.workspace_quota:
            await WorkspaceQuota(limit, board.at_work, board.stop).run()

    def _plugin_cache(self, plane: ControlPlane, client: httpx2.AsyncClient) -> PluginCache:
        """Returns the plugins of this host.

        Raises:
            click.ClickException: Their folder cannot be used.
        """
        settings = self._settings
        cache = PluginCache(
            settings.data_dir / "plugins",
            PluginFetcher(plane, client).fetch,
            bundled.folders(),
            settings.plugin_trust,
            settings.plugin_cache_bytes,
        )
        try:
            cache.open()
        except OSError as error:
            raise click.ClickException(f"plugins: {error}") from error
        return cache

    async def _serve(self, session: Session, board: Board) -> int:
        """Keeps the session; returns an exit code when it cannot go on."""
        try:
            await session.run()
        except SupersededError as error:
            _log.error("stopping: another instance has this agent's id", error=str(error))
            await self._stop_all(board, "superseded", "a newer instance has this agent's id")
            return 3
        except RefusedError as error:
            _log.error("stopping: the control plane refuses this agent", error=str(error))
            await self._stop_all(board, "superseded", "the control plane refuses this agent")
            return 1
        return 0

    async def _stop_all(self, board: Board, cause: str, message: str) -> None:
        """Stops what still runs: nobody will ask for its end."""
        board.stop_all(cause, message)
        try:
            async with asyncio.timeout(_SUPERSEDED_STOP_SECONDS):
                await board.quiet.wait()
        except TimeoutError:
            _log.warning("tasks are still being stopped by the supervisor")

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            sys.stdout.write(f"ready agent={self._agent_id} server={self._settings.server}\n")
            sys.stdout.flush()

    def _handle_signals(self, drain: Drain, session: Session, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, drain.request)

        def reload() -> None:
            try:
                labels = self._settings.all_labels()
            except click.ClickException as error:
                _log.error("labels stay as they are", error=error.message)
                return
            group.create_task(session.update_labels(labels))

        loop.add_signal_handler(signal.SIGHUP, reload)
