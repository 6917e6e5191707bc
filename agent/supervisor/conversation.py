"""One session's connection: its orders in, events out, many to a send."""

import socket
from collections.abc import Callable

from agent.supervisor import frames
from agent.supervisor.frames import Message
from agent.supervisor.loop import Loop

_READ_BYTES = 16 * 1024
"""Some dozens of orders: pipes and ends do not wait until hundreds of tasks are started."""


class Conversation:
    """Speaks with one session, until it hangs up or is hung up on.

    Attributes:
        heard: Called with each message.
    """

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        heard: Callable[[Message], None],
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self.heard = heard
        self._ended = ended
        self._frames = frames.Splitter()
        self._unsent = bytearray()
        self._sends_soon = False
        self._full = False
        self._deaf = False
        connection.setblocking(False)
        loop.watch(connection.fileno(), self._ready)

    def say(self, message: Message) -> None:
        """Sends a message, together with what else is said until the loop waits."""
        if self._deaf:
            return
        self._unsent += frames.encode(message)
        if not self._sends_soon:
            self._sends_soon = True
            self._loop.before_waiting(self._send)

    def hang_up(self) -> None:
        """Ends it, once what was said is on its way as far as that goes at once."""
        if self._connection.fileno() < 0:
            return
        self._send()
        self._deaf = True
        self._loop.unwatch(self._connection.fileno())
        self._connection.close()
        self._ended()

    def _ready(self) -> None:
        if self._full:
            self._send()
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            for message in self._frames.feed(data):
                self.heard(message)
                if self._connection.fileno() < 0:
                    return
        except frames.FrameError:
            data = b""
        if not data:  # it died, maybe in the middle of a word; the next one starts afresh
            self.hang_up()

    def _send(self) -> None:
        self._sends_soon = False
        if self._connection.fileno() < 0:
            return
        try:
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # reading tells the same
            self._deaf = True
            self._unsent.clear()
        if self._full != bool(self._unsent):
            self._full = bool(self._unsent)
            self._loop.also_for_writing(self._connection.fileno(), self._full)
