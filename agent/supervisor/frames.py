"""How the session and the supervisor speak: JSON messages behind a four-byte length."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROTOCOL = 1
"""Version both sides name in their first message; they must agree."""

SOCKET_NAME = "supervisor.sock"
LOCK_NAME = "supervisor.lock"

LENGTH_BYTES = 4
LONGEST = 64 * 1024 * 1024
"""Longest message; gRPC's cap keeps tasks far below it."""

Message = dict[str, Any]

_to_text = json.JSONEncoder(separators=(",", ":")).encode


class FrameError(Exception):
    """The other side sent what is no message."""


def encode(message: Message) -> bytes:
    """Returns a message as it goes over the socket."""
    body = _to_text(message).encode()
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def length_of(head: bytes | bytearray) -> int:
    """Returns the length that a message's head announces.

    Raises:
        FrameError: It is beyond any message.
    """
    length = int.from_bytes(head, "big")
    if length > LONGEST:
        raise FrameError(f"a message of {length} bytes")
    return length


def decode(body: bytes | bytearray) -> Message:
    """Returns the message in a frame's body.

    Raises:
        FrameError: The body is no JSON object.
    """
    try:
        message = json.loads(body.decode())
    except ValueError as error:
        raise FrameError(str(error)) from error
    if not isinstance(message, dict):
        raise FrameError("not an object")
    return message


class Splitter:
    """Cuts what arrives on a socket into messages, wherever reads cut it."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yields the messages that are whole now.

        Raises:
            FrameError: The other side sent what is no message.
        """
        self._rest += data
        begin = 0
        try:
            while len(self._rest) >= begin + LENGTH_BYTES:
                body = begin + LENGTH_BYTES
                end = body + length_of(self._rest[begin:body])
                if len(self._rest) < end:
                    break
                begin = end
                yield decode(self._rest[body:end])
        finally:
            del self._rest[:begin]


class ShortPath:
    """A socket's path by way of its folder's descriptor.

    A socket path has at most 107 bytes, and a data directory may be deeper than that.
    """

    def __init__(self, data_dir: Path) -> None:
        self._descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
        self.path = f"/proc/self/fd/{self._descriptor}/{SOCKET_NAME}"

    def __enter__(self) -> str:
        return self.path

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
