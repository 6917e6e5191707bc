"""The proxy does what it says: else the chaos run proves less than it claims."""

import asyncio
import contextlib

import pytest

from tests.chaos.proxy import Link


class Echo:
    """A server that answers each line with the same line, and says when it was hung up on."""

    def __init__(self):
        self.hung_up = asyncio.Event()

    async def serve(self, reader, writer):
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        self.hung_up.set()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def echo():
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.address = server.sockets[0].getsockname()
    yield echo
    server.close()


@pytest.fixture
async def link(echo):
    link = Link(lambda: echo.address)
    await link.start()
    yield link
    await link.stop()


@pytest.fixture
async def dial(link):
    writers = []

    async def dial(link):
        host, port = link.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        return reader, writer

    yield dial
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def said(reader, writer, text=b"hello\n"):
    writer.write(text)
    return await asyncio.wait_for(reader.readline(), 5)


async def test_passes_bytes_on_both_ways(link, dial):
    reader, writer = await dial(link)
    assert await said(reader, writer) == b"hello\n"


async def test_a_cut_ends_both_sides(link, echo, dial):
    reader, writer = await dial(link)
    await said(reader, writer)
    link.cut()
    with pytest.raises(ConnectionError):
        await reader.read()
    await asyncio.wait_for(echo.hung_up.wait(), 5)


async def test_a_half_close_ends_one_direction(link, echo, dial):
    reader, writer = await dial(link)
    await said(reader, writer)
    link.half_close(towards_server=False)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert not echo.hung_up.is_set()


async def test_a_stall_holds_bytes_back_until_it_is_healed(link, dial):
    reader, writer = await dial(link)
    await said(reader, writer)
    link.stall()
    writer.write(b"later\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readline(), 0.2)
    link.heal()
    assert await asyncio.wait_for(reader.readline(), 5) == b"later\n"


async def test_a_delay_lets_bytes_come_late(link, dial):
    reader, writer = await dial(link)
    link.lag = 0.1
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert await said(reader, writer) == b"hello\n"
    assert loop.time() - before >= 0.2


async def test_without_a_target_a_connection_is_refused(link, dial):
    link.target = lambda: None
    reader, _ = await dial(link)
    with pytest.raises(ConnectionError):
        await reader.read()
