"""The control plane as the agent calls it: one channel, one session, every call with a limit."""

from typing import TypeAlias

import grpc
import grpc.aio

from agent.config import Settings
from agent.credential import Credential
from agent.rpc import CALL_SECONDS, open_channel
from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.artifact.v1 import artifact_pb2, artifact_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc

Stream: TypeAlias = grpc.aio.StreamStreamCall[
    stream_pb2.AgentChannelRequest, stream_pb2.AgentChannelResponse
]


COMPLETE_SECONDS = 300.0


class ControlPlane:
    """Calls of one agent. Each raises `grpc.aio.AioRpcError` when it fails.

    Attributes:
        session_id: The session that calls belong to; empty until one is registered.
    """

    def __init__(self, settings: Settings, agent_id: str, credential: Credential) -> None:
        self.agent_id = agent_id
        self.session_id = ""
        self._namespace = settings.namespace
        self._credential = credential
        self._channel = open_channel(settings.server, settings.tls)
        self._agents: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(
            self._channel
        )
        self._artifacts: artifact_pb2_grpc.ArtifactServiceAsyncStub = (
            artifact_pb2_grpc.ArtifactServiceStub(self._channel)
        )
        self._streams: stream_pb2_grpc.StreamServiceAsyncStub = stream_pb2_grpc.StreamServiceStub(
            self._channel
        )

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return self._showing(self._credential.key)

    def _showing(self, token: str) -> tuple[tuple[str, str], ...]:
        namespace = (("muster-namespace", self._namespace),) if self._namespace else ()
        return (*namespace, ("authorization", f"Bearer {token}")) if token else namespace

    async def register(self, request: agent_pb2.RegisterRequest) -> agent_pb2.RegisterResponse:
        """Opens a session and keeps its id.

        Raises:
            CredentialError: The agent's own token cannot be kept.
        """
        *first, last = self._credential.to_register()
        request.credential_digest = self._credential.digest
        for token in first:
            try:
                return await self._register(request, token)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                    raise
        return await self._register(request, last)

    async def _register(
        self, request: agent_pb2.RegisterRequest, token: str
    ) -> agent_pb2.RegisterResponse:
        answer = await self._agents.Register(
            request, timeout=CALL_SECONDS, metadata=self._showing(token)
        )
        self.session_id = answer.session_id
        self.take_key(answer.agent_key)
        return answer

    def take_key(self, key: str) -> None:
        """Shows another key from now on; an empty one leaves what there is."""
        self._credential.key = key or self._credential.key

    async def heartbeat(self, request: agent_pb2.HeartbeatRequest) -> agent_pb2.HeartbeatResponse:
        """Says that the session lives."""
        request.agent_id, request.session_id = self.agent_id, self.session_id
        answer = await self._agents.Heartbeat(
            request, timeout=CALL_SECONDS, metadata=self._metadata
        )
        self.take_key(answer.agent_key)
        return answer

    async def fetch(self, request: agent_pb2.FetchTaskRequest) -> agent_pb2.FetchTaskResponse:
        """Asks for tasks; the call lasts as long as the request waits, and a little longer."""
        request.agent_id, request.session_id = self.agent_id, self.session_id
        limit = request.wait + CALL_SECONDS
        return await self._agents.FetchTask(request, timeout=limit, metadata=self._metadata)

    async def report_status(
        self, request: agent_pb2.ReportTaskStatusRequest
    ) -> agent_pb2.ReportTaskStatusResponse:
        """Says how a task goes."""
        request.agent_id = self.agent_id
        return await self._agents.ReportTaskStatus(
            request, timeout=CALL_SECONDS, metadata=self._metadata
        )

    async def report_log(
        self, request: agent_pb2.ReportTaskLogRequest
    ) -> agent_pb2.ReportTaskLogResponse:
        """Hands in log lines."""
        request.agent_id = self.agent_id
        return await self._agents.ReportTaskLog(
            request, timeout=CALL_SECONDS, metadata=self._metadata
        )

    async def unregister(self, reason: str) -> None:
        """Closes the session."""
        request = agent_pb2.UnregisterRequest(
            agent_id=self.agent_id, reason=reason, session_id=self.session_id
        )
        await self._agents.Unregister(request, timeout=5.0, metadata=self._metadata)

    def fetch_plugin(
        self, request: agent_pb2.FetchPluginRequest
    ) -> grpc.aio.UnaryStreamCall[agent_pb2.FetchPluginRequest, agent_pb2.FetchPluginResponse]:
        """Asks for a plugin's package, piece by piece."""
        request.agent_id = self.agent_id
        return self._agents.FetchPlugin(request, metadata=self._metadata)

    async def begin_upload(
        self, request: artifact_pb2.BeginUploadRequest
    ) -> artifact_pb2.BeginUploadResponse:
        """Begins to hand in a file of a task, or goes on with one."""
        request.agent_id = self.agent_id
        return await self._artifacts.BeginUpload(
            request, timeout=CALL_SECONDS, metadata=self._metadata
        )

    async def sign_parts(
        self, request: artifact_pb2.SignPartsRequest
    ) -> artifact_pb2.SignPartsResponse:
        """Asks where parts are put."""
        return await self._artifacts.SignParts(
            request, timeout=CALL_SECONDS, metadata=self._metadata
        )

    async def complete_upload(
        self, request: artifact_pb2.CompleteUploadRequest
    ) -> artifact_pb2.CompleteUploadResponse:
        """Says that all parts are there; the store may have to read a large file again."""
        return await self._artifacts.CompleteUpload(
            request, timeout=COMPLETE_SECONDS, metadata=self._metadata
        )

    def open_stream(self) -> Stream:
        """Opens the agent's stream; the first message is the caller's to send."""
        return self._streams.AgentChannel(metadata=self._metadata)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()
