"""A real S3 on loopback, SeaweedFS, for the tests that ask for one."""

import os
import secrets
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PROGRAM = Path(__file__).parents[1] / ".venv" / "bin" / "weed"
READY_SECONDS = 60.0
STARTS = 3
"""It takes ports by number, so another program can be quicker; then it is started with others."""

SOCKETS = Path("/tmp")  # noqa: S108 - it is SeaweedFS that makes them there, and leaves some

BUCKET = "blobs"
ROLES = ("master", "volume", "filer", "s3", "admin")


@dataclass(frozen=True)
class S3:
    """Where it is and who may use it."""

    endpoint: str
    key: str
    secret: str


@contextmanager
def seaweedfs(folder):
    """Give a store with one bucket, BUCKET, that ends with the block."""
    process, store = _start(folder)
    try:
        yield store
    finally:
        _stop(process)


def _start(folder):
    for attempt in range(STARTS):
        place = folder / str(attempt)
        place.mkdir()
        process, store = _try(place)
        if _is_ready(process, store):
            return process, store
        _stop(process)
    raise RuntimeError(f"SeaweedFS does not start:\n{(place / 'weed.log').read_text()}")


def _try(folder):
    key, secret = secrets.token_hex(8), secrets.token_hex(16)
    ports = _free_ports()
    with (folder / "weed.log").open("wb") as out:
        process = subprocess.Popen(  # noqa: S603
            [
                PROGRAM, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                "-admin.ui=false", "-webdav=false", "-master.telemetry=false",
                "-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}",
                *(f"-{flag}={port}" for flag, port in ports.items()),
            ],
            stdout=out, stderr=subprocess.STDOUT, cwd=folder,
            env={**os.environ, "HOME": str(folder),
                 "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret},
        )  # fmt: skip
    return process, S3(f"http://127.0.0.1:{ports['s3.port']}", key, secret)


def _is_ready(process, store):
    """Wait until objects can be written; return False when the process ends or takes too long."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=store.key,
        aws_secret_access_key=store.secret,
        config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + READY_SECONDS
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
                client.delete_object(Bucket=BUCKET, Key="ready")
                return True
            except (BotoCoreError, ClientError):
                time.sleep(0.05)
    finally:
        client.close()
    return False


def _stop(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for port in (word.rpartition("=")[2] for word in process.args[2:] if ".port" in str(word)):
        for left in SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


def _free_ports():
    """Return a free port for each flag; all are held until all are found."""
    flags = [f"{role}.port{kind}" for role in ROLES for kind in ("", ".grpc")]
    with ExitStack() as stack:
        probes = {flag: stack.enter_context(socket.socket()) for flag in flags}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {flag: probe.getsockname()[1] for flag, probe in probes.items()}
