"""One session with the control plane: registers, keeps the line, comes back when it breaks."""

import asyncio
import time
from collections.abc import Callable

import grpc
import grpc.aio
import structlog

from agent import host
from agent.abilities import Abilities
from agent.backoff import Backoff
from agent.board import Board
from agent.config import Settings
from agent.control_plane import ControlPlane
from agent.credential import CredentialError
from agent.heartbeat import Heartbeat
from agent.line import BestLine
from agent.measuring import Measuring
from agent.outbox import Outbox
from agent.rpc import is_superseded, what_to_do
from agent.stream_line import StreamLine
from agent.unary_line import UnaryLine
from agent.version import VERSION
from generated.agent.v1 import agent_pb2

_UNKNOWN_SESSION = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
_HOPELESS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)

_log = structlog.get_logger("agent.session")


class SupersededError(Exception):
    """A newer instance has taken over the agent's id."""


class RefusedError(Exception):
    """The control plane refuses this agent, and would refuse it again."""


class Session:
    """The agent's side of the protocol."""

    def __init__(
        self,
        settings: Settings,
        plane: ControlPlane,
        board: Board,
        outbox: Outbox,
        heartbeat: Heartbeat,
        welcomed: Callable[[], None],
        abilities: Abilities,
    ) -> None:
        self._server = settings.server
        self._labels = settings.all_labels()
        self._abilities = abilities
        self._board = board
        self._heartbeat = heartbeat
        self._announce = welcomed
        self._backoff = Backoff()
        self._plane = plane
        measuring = Measuring(settings.data_dir, settings.metrics_dir)
        shared = (self._plane, board, outbox, heartbeat, self._welcomed, measuring)
        self._line = BestLine(StreamLine(*shared), UnaryLine(*shared))

    async def run(self) -> None:
        """Keeps the session, until cancelled.

        Raises:
            SupersededError: A newer instance has the agent's id.
            RefusedError: The control plane refuses the agent.
        """
        while True:
            try:
                if not self._plane.session_id:
                    await self._register()
                await self._line.hold()
                _log.info("the line ended", server=self._server)
            except grpc.aio.AioRpcError as error:
                self._judge(error)
            except TimeoutError:
                _log.warning("the control plane is silent", server=self._server)
            await asyncio.sleep(self._backoff.next())

    async def update_labels(self, labels: dict[str, str]) -> None:
        """Tells the control plane the agent's labels; errors are left to the next Register."""
        self._labels = labels
        await self.tell_labels()

    async def tell_labels(self) -> None:
        """Tells the control plane the agent's labels and what it can do; see `update_labels`."""
        if not self._plane.session_id:
            return  # Register tells them
        labels = {**self._abilities.labels(), **self._labels}
        try:
            await self._plane.heartbeat(agent_pb2.HeartbeatRequest(labels=labels))
        except grpc.aio.AioRpcError as error:
            _log.warning("labels were not taken", code=error.code().name, error=error.details())

    async def unregister(self, reason: str) -> None:
        """Closes the session; without an answer the server notices by itself."""
        if not self._plane.session_id:
            return
        try:
            await self._plane.unregister(reason)
        except grpc.aio.AioRpcError as error:
            _log.warning("could not unregister", code=error.code().name, error=error.details())

    async def close(self) -> None:
        """Closes the connection."""
        await self._plane.close()

    def _welcomed(self) -> None:
        self._backoff.reset()
        self._announce()

    def _judge(self, error: grpc.aio.AioRpcError) -> None:
        """Decides what a failed call means for the session."""
        if is_superseded(error):
            message = f"a newer instance runs as agent {self._plane.agent_id}"
            raise SupersededError(message) from error
        registering = not self._plane.session_id
        if registering and error.code() in _HOPELESS:
            raise RefusedError(f"{error.code().name}: {error.details()}{_hint(error)}") from error
        if error.code() in (*_UNKNOWN_SESSION, grpc.StatusCode.UNAUTHENTICATED):
            self._plane.session_id = ""
        hint = {"hint": why} if (why := what_to_do(error)) else {}
        _log.warning(
            "the control plane did not answer",
            code=error.code().name,
            error=error.details(),
            **hint,
        )

    async def _register(self) -> None:
        """Opens a session.

        Raises:
            RefusedError: The agent's own token cannot be kept.
        """
        request = host.facts()
        request.agent_id = self._plane.agent_id
        request.version = VERSION
        request.max_concurrent_jobs = self._board.slots
        request.labels.update(self._abilities.labels(plugins=False))
        request.labels.update(self._labels)
        request.installed_plugins.extend(self._abilities.installed())
        request.held.CopyFrom(self._board.held())
        request.held.seen_through = 0
        sent_at = time.monotonic()
        try:
            answer = await self._plane.register(request)
        except CredentialError as error:
            raise RefusedError(str(error)) from error
        self._board.seen_through = 0
        self._heartbeat.set_interval(answer.heartbeat_interval)
        self._board.set_lease_seconds(answer.lease_seconds)
        self._board.renewed(sent_at)
        self._board.judge(answer.verdicts)


def _hint(error: grpc.aio.AioRpcError) -> str:
    if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
        return ""
    return (
        " Enrol this host: an administrator makes a token (muster token enrol NAME), and"
        " --enrolment-token-file names the file with it."
    )
