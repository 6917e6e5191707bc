"""A real S3 on loopback, SeaweedFS, for the tests that ask for one."""

import base64
import json
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
ROLE = "arn:aws:iam::role/uploads"
"""One that its owner may assume, and that may do everything in the bucket."""

ROLES = ("master", "volume", "filer", "s3", "admin")


@dataclass
class S3:
    """Where it is and who may use it; it is stopped and started with what it keeps."""

    folder: Path
    key: str
    secret: str
    ports: dict[str, int]
    process: subprocess.Popen | None = None

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    @property
    def env(self):
        """The variables with which a program may use it."""
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def place(self, prefix, endpoint=""):
        """Return it as a setting of the server's names it."""
        return f"s3://{BUCKET}/{prefix}?endpoint={endpoint or self.endpoint}"

    def client(self, **more):
        """Return a client of boto3's, which tries once and is closed by whoever asks."""
        settings = {"connect_timeout": 1, "read_timeout": 30, "retries": {"total_max_attempts": 1}}
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(**settings | more),
        )

    def start(self):
        """Start it again where it was.

        Raises:
            RuntimeError: it does not start.
        """
        self.process = _run(self)
        if not _is_ready(self):
            raise RuntimeError(f"SeaweedFS does not start:\n{self.complaints()}")

    def stop(self):
        """End it; what it keeps stays."""
        _stop(self.process)

    def complaints(self):
        return (self.folder / "weed.log").read_text()


@contextmanager
def seaweedfs(folder):
    """Give a store with one bucket, BUCKET, that ends with the block."""
    store = _first(folder)
    try:
        yield store
    finally:
        store.stop()


def _first(folder):
    for attempt in range(STARTS):
        place = folder / str(attempt)
        place.mkdir()
        store = S3(place, secrets.token_hex(8), secrets.token_hex(16), _free_ports())
        store.process = _run(store)
        if _is_ready(store):
            return store
        store.stop()
    raise RuntimeError(f"SeaweedFS does not start:\n{store.complaints()}")


def _run(store):
    folder = store.folder
    with (folder / "weed.log").open("ab") as out:
        return subprocess.Popen(  # noqa: S603
            [
                PROGRAM, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                "-admin.ui=false", "-webdav=false", "-master.telemetry=false",
                "-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}",
                f"-s3.iam.config={_roles(folder)}",
                *(f"-{flag}={port}" for flag, port in store.ports.items()),
            ],
            stdout=out, stderr=subprocess.STDOUT, cwd=folder,
            env={**os.environ, "HOME": str(folder), **store.env},
        )  # fmt: skip


def _roles(folder):
    """Return a file that lets it lend credentials by STS."""
    anything = {
        "Effect": "Allow",
        "Action": ["s3:*"],
        "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
    }
    anybody = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole"]}
    role = {
        "roleName": "uploads",
        "roleArn": ROLE,
        "attachedPolicies": ["uploads"],
        "trustPolicy": {"Version": "2012-10-17", "Statement": [anybody]},
    }
    policy = {"Version": "2012-10-17", "Statement": [anything]}
    file = folder / "iam.json"
    if not file.exists():
        config = {
            "sts": {
                "tokenDuration": "1h",
                "maxSessionLength": "12h",
                "issuer": "tests",
                "signingKey": base64.b64encode(secrets.token_bytes(32)).decode(),
            },
            "policies": [{"name": "uploads", "document": policy}],
            "roles": [role],
        }
        file.write_text(json.dumps(config))
    return file


def _is_ready(store):
    """Wait until objects can be written; return False when the process ends or takes too long."""
    client = store.client(read_timeout=2)
    deadline = time.monotonic() + READY_SECONDS
    try:
        while store.process.poll() is None and time.monotonic() < deadline:
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
