"""A TCP proxy that misbehaves when it is told to: cuts, half-closes, stalls and delays."""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from socket import SO_LINGER, SOL_SOCKET

CHUNK = 64 * 1024
CONNECT_SECONDS = 5.0


def reset(writer):
    """Close a connection with a reset, not in order."""
    socket = writer.get_extra_info("socket")
    if not writer.is_closing():
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Connection:
    """One connection and the two directions it is pumped in."""

    def __init__(self, near, far):
        self.near = near
        self.far = far

    def cut(self):
        """Break it: both ends get a reset."""
        for writer in (self.near, self.far):
            reset(writer)

    def half_close(self, *, towards_server: bool):
        """Tell one end that nothing more will come; the other direction goes on."""
        writer = self.far if towards_server else self.near
        with contextlib.suppress(OSError, RuntimeError):
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()


class Link:
    """One listening port; each new connection goes where `target` says at that moment."""

    def __init__(self, target: Callable[[], tuple[str, int] | None]):
        self.target = target
        self.lag = 0.0
        self.address = ""
        self.accepted = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def stop(self):
        self._server.close()
        self.heal()
        self.cut()
        await self._empty.wait()
        await self._server.wait_closed()

    def cut(self):
        for connection in list(self._connections):
            connection.cut()

    def half_close(self, *, towards_server: bool):
        for connection in list(self._connections):
            connection.half_close(towards_server=towards_server)

    def stall(self):
        """Take bytes but pass none on, until `heal`."""
        self._flowing.clear()

    def heal(self):
        self.lag = 0.0
        self._flowing.set()

    async def _accept(self, reader, near):
        self.accepted += 1
        target = self.target()
        if target is None:
            await self._refuse(near)
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                far_reader, far = await asyncio.open_connection(*target)
        except OSError:  # a TimeoutError is one
            await self._refuse(near)
            return
        connection = Connection(near, far)
        self._connections.add(connection)
        self._empty.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far, connection.cut))
                group.create_task(self._pump(far_reader, near, connection.cut))
        finally:
            connection.cut()
            await self._closed(near)
            await self._closed(far)
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    async def _refuse(self, near):
        reset(near)
        await self._closed(near)

    async def _closed(self, writer):
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _pump(self, reader, writer, cut: Callable[[], Awaitable[None] | None]):
        try:
            while data := await reader.read(CHUNK):
                if self.lag:
                    await asyncio.sleep(self.lag)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):  # reset, or half-closed by us: then nothing can be said
            cut()
