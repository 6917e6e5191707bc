"""Messages cross the socket whole and in order, however it cuts them."""

import socket

import pytest

from agent.supervisor import frames
from agent.supervisor.conversation import Conversation
from agent.supervisor.loop import Loop


@pytest.fixture
def ends():
    """Both ends of a connection."""
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("piece", [1, 3, 7, 1000])
def test_reads_may_cut_messages_anywhere(piece):
    messages = [{"kind": "start", "commands": ["x" * n]} for n in range(20)]
    data = b"".join(map(frames.encode, messages))
    splitter = frames.Splitter()
    pieces = [data[n : n + piece] for n in range(0, len(data), piece)]
    assert [message for part in pieces for message in splitter.feed(part)] == messages


def test_more_than_the_socket_takes_arrives_when_it_is_read(ends):
    ours, theirs = ends
    loop, heard = Loop(), []
    conversation = Conversation(loop, ours, heard.append, loop.end)
    said = [{"number": n, "text": "x" * 100_000} for n in range(100)]
    for message in said:
        conversation.say(message)
    reader = Conversation(loop, theirs, heard.append, loop.end)

    def until_all_is_heard():
        if len(heard) == len(said):
            reader.hang_up()
        else:
            loop.at("look", 0, until_all_is_heard)

    until_all_is_heard()
    loop.run()
    assert heard == said


def test_a_message_that_is_none_ends_it(ends):
    ours, theirs = ends
    loop, heard = Loop(), []
    Conversation(loop, ours, heard.append, loop.end)
    theirs.sendall(frames.encode({"kind": "first"}) + b"\0\0\0\4nope")
    loop.run()
    assert heard == [{"kind": "first"}]
    assert theirs.recv(1) == b""
