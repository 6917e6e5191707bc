"""A door before an HTTP server on loopback: notes what is asked, can be shut, can keep waiting."""

import re
import socket
import struct
import threading
from contextlib import contextmanager, suppress

CHUNK = 64 * 1024
_AT_ONCE = struct.pack("ii", 1, 0)
"""Of SO_LINGER: to close is to reset, or a sender with a full window may wait for long."""
_ASKED = re.compile(rb"(?:^|\n)(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r")


class CountingProxy:
    """See the module. `asked` has each request as "METHOD PATH", in order."""

    def __init__(self, port=0):
        self._far = ("127.0.0.1", port)
        self._held = ""
        self._flows = threading.Event()
        self._flows.set()
        self._near = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._near.getsockname()[1]}"
        self.asked = []
        self._open = set()
        self._lock = threading.Lock()
        self._shut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def aim(self, port):
        """Stand before another port from now on."""
        self._far = ("127.0.0.1", port)

    def hold(self, method):
        """Keep requests of a method waiting; they are noted, and go nowhere."""
        self._held = method
        self._flows.clear()

    def let_on(self):
        """Pass on what waits, and all that comes."""
        self._flows.set()

    def shut(self):
        """Break what is open and refuse what comes."""
        self._shut = True
        self.cut()

    def reopen(self):
        """Pass bytes on again."""
        self._shut = False

    def cut(self):
        """Break every connection."""
        with self._lock:
            broken, self._open = self._open, set()
        for each in broken:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                each.shutdown(socket.SHUT_RDWR)

    def close(self):
        """End it."""
        self._near.close()
        self._flows.set()
        self.cut()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._near.accept()
                if self._shut:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(self._far)
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._open |= {near, far}
                for source, target, heard in ((near, far, True), (far, near, False)):
                    threading.Thread(
                        target=self._pump, args=(source, target, heard), daemon=True
                    ).start()

    def _pump(self, source, target, heard):
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if heard:
                    self._note(data)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()

    def _note(self, data):
        found = [(method.decode(), path.decode()) for method, path in _ASKED.findall(data)]
        self.asked += [f"{method} {path}" for method, path in found]
        if any(method == self._held for method, _ in found):
            self._flows.wait()


@contextmanager
def counting_proxy(port=0):
    """Give a door before a port that closes with the block."""
    proxy = CountingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
