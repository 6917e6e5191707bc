"""A door before an HTTP server on loopback: passes bytes on, notes what is asked, can be shut."""

import re
import socket
import threading
from contextlib import contextmanager, suppress

CHUNK = 64 * 1024
_ASKED = re.compile(rb"(?:^|\n)(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r")


class CountingProxy:
    """See the module. `asked` has each request as "METHOD PATH", in order."""

    def __init__(self, port):
        self._far = ("127.0.0.1", port)
        self._near = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._near.getsockname()[1]}"
        self.asked = []
        self._open = set()
        self._lock = threading.Lock()
        self._shut = False
        threading.Thread(target=self._accept, daemon=True).start()

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
                each.shutdown(socket.SHUT_RDWR)

    def close(self):
        """End it."""
        self._near.close()
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
                    self.asked += [
                        f"{method.decode()} {path.decode()}"
                        for method, path in _ASKED.findall(data)
                    ]
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()


@contextmanager
def counting_proxy(port):
    """Give a door before a port that closes with the block."""
    proxy = CountingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
