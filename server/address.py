"""Where to listen: a host and a port."""

from dataclasses import dataclass
from ipaddress import ip_address

HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP address with a TCP port; port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `HOST:PORT`, with an IPv6 host in brackets.

        Raises:
            ValueError: the text has another form.
        """
        host, colon, port = text.strip().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed):
            raise ValueError("should be HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
        if not (port.isascii() and port.isdigit() and int(port) <= HIGHEST_PORT):
            raise ValueError(f"the port should be a number from 0 to {HIGHEST_PORT}")
        return cls(host[1:-1] if bracketed else host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name may resolve to anything

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
