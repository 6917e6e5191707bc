"""The session's connection to its supervisor: finds it, starts it, and starts it again."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

import agent
from agent.backoff import Backoff
from agent.supervisor import frames
from agent.supervisor.frames import Message

_START_SECONDS = 60.0
"""How long a new supervisor may take to clean up after its predecessor."""

_READ_BYTES = 256 * 1024

_log = structlog.get_logger("agent.supervisor_link")


class SupervisorError(Exception):
    """There is no supervisor to speak with."""


class SupervisorLink:
    """Keeps one supervisor running and connected.

    Attributes:
        found: Called with the states of all attempts at each connection.
        says: Called with each event.
        plans: Whether the supervisor can run plans, as those from before cannot.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        confines: bool = False,
        tells: Mapping[str, str] | None = None,
    ) -> None:
        self._tells = tells or {}
        """Variables that tell tasks where the control plane is."""
        self._confines = confines
        """Whether it must know how to confine tasks."""
        self.found: Callable[[list[Message]], None] = lambda _: None
        self.says: Callable[[Message], None] = lambda _: None
        self.ready = asyncio.Event()
        self.plans = False
        self._data_dir = data_dir
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._unsent: list[bytes] = []

    def tell(self, message: Message) -> None:
        """Sends an order; without a supervisor it is settled at the next connection.

        All that is told until the loop waits goes in one piece.
        """
        if self._writer is None:
            return
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent.append(frames.encode(message))

    async def run(self) -> None:
        """Keeps the connection, until cancelled."""
        backoff = Backoff()
        try:
            while True:
                try:
                    await self._connect()
                    await self._listen(backoff.reset)
                except (OSError, SupervisorError, frames.FrameError) as error:
                    _log.error("no supervisor", error=str(error))
                self._close()
                _log.warning("the supervisor is gone; starting another")
                await asyncio.sleep(backoff.next())
        finally:
            self._close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _START_SECONDS
        while not await self._dial():
            if self._process is None or self._process.poll() is not None:
                self._process = await asyncio.to_thread(self._start)
            if loop.time() > give_up:
                raise SupervisorError("the supervisor does not answer")
            await asyncio.sleep(0.02)
        self.tell({"kind": "hello", "protocol": frames.PROTOCOL})

    def _welcomed(self, welcome: Message) -> None:
        if welcome["kind"] != "welcome":
            raise SupervisorError(f"the running supervisor speaks protocol {welcome['protocol']}")
        if self._confines and not welcome.get("confines"):
            raise SupervisorError(
                "the running supervisor is of an earlier version and cannot confine tasks; it goes"
                " when the agent is stopped with SIGTERM"
            )
        self.plans = bool(welcome.get("plans"))
        self.found(welcome["attempts"])
        self.ready.set()

    async def _dial(self) -> bool:
        with frames.ShortPath(self._data_dir) as path:
            try:
                self._reader, self._writer = await asyncio.open_unix_connection(path)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    async def _listen(self, connected: Callable[[], None]) -> None:
        """Hears what comes, the welcome first, until the end."""
        if self._reader is None:
            raise SupervisorError("not connected")
        splitter = frames.Splitter()
        welcomed = False
        while data := await self._reader.read(_READ_BYTES):
            for message in splitter.feed(data):
                if welcomed:
                    self.says(message)
                else:
                    self._welcomed(message)
                    welcomed = True
                    connected()
        raise SupervisorError("the supervisor closed the connection")

    def _send(self) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(b"".join(self._unsent))
        self._unsent.clear()

    def _close(self) -> None:
        self._send()
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    def _start(self) -> "subprocess.Popen[bytes]":
        """Starts a supervisor in a session of its own, so that it outlives this process."""
        code = Path(agent.__file__).resolve().parent.parent
        with (self._data_dir / "supervisor.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own module
                # Without `site` and the working directory: the standard library is all it needs.
                [
                    *(sys.executable, "-S", "-P", "-m", "agent.supervisor"),
                    *("--data-dir", str(self._data_dir)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._tells, "PYTHONPATH": str(code)},
                start_new_session=True,
            )
