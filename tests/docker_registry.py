"""A real OCI registry on loopback, docker-registry, for the tests that ask for one."""

import secrets
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx2

from tests.e2e.processes import BIN

PROGRAM = "docker-registry"
READY_SECONDS = 30.0
CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}
"""


@dataclass(frozen=True)
class OciRegistry:
    """Where it is, who may use it, and where it keeps its files."""

    host: str
    user: str
    password: str
    folder: Path


def program():
    """Return where the program is, or None."""
    return shutil.which(PROGRAM, path=str(BIN)) or shutil.which(PROGRAM)


@contextmanager
def docker_registry(folder):
    """Give a registry that ends with the block."""
    user, password = "publisher", secrets.token_hex(16)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"{user}:{hashed}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port))
    with (folder / "registry.log").open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - a program of Debian's
            [program(), "serve", folder / "config.yml"], stdout=out, stderr=out
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/v2/", (user, password))
        yield OciRegistry(f"127.0.0.1:{port}", user, password, folder / "data")
    finally:
        process.terminate()
        process.wait()


def _wait(process, url, login):
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            if httpx2.get(url, auth=login).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("docker-registry does not start")
        time.sleep(0.02)
