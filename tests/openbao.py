"""A real OpenBao on loopback, in memory, for the tests that ask for one."""

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2

PROGRAM = Path(__file__).parents[1] / ".venv" / "bin" / "bao"
READY_SECONDS = 30.0


@contextmanager
def openbao(folder):
    """Give the address and the file with the root token of a server that ends with the block."""
    token = "test-root"  # noqa: S105 (of a server that lives in memory, for seconds)
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    log = folder / "bao.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603
            [
                PROGRAM, "server", "-dev", "-dev-no-store-token",
                f"-dev-root-token-id={token}", f"-dev-listen-address=127.0.0.1:{port}",
            ],
            stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
    try:
        _wait(process, address, log)
        file = folder / "bao.token"
        file.write_text(token)
        yield address, file
    finally:
        process.terminate()
        process.wait(10)


def _wait(process, address, log):
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            if httpx2.get(f"{address}/v1/sys/health", timeout=1).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"OpenBao does not start:\n{log.read_text()}")
        time.sleep(0.05)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
