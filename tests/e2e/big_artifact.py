"""`make big-artifact`: a GiB goes up while the server is killed, to the next job, and down.

Prints a line of JSON. The exit code is 1 where the bytes are others, or the agent's session took
more memory than it may.
"""

import hashlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.e2e.kit import Kit, eventually
from tests.e2e.test_examples import standing
from tests.e2e.test_plugins import Plugged

SIZE = 1 << 30
MOST_MIB = 150
SECONDS = 300
FLOW = f"""
name: big
stages:
  - name: up
    jobs:
      - name: leaves
        commands: [head -c {SIZE} /dev/urandom > big.bin, sha256sum big.bin]
        artifacts: big.bin
  - name: on
    jobs:
      - name: takes
        take: leaves
        commands: [sha256sum big.bin]
"""


class Watch:
    """Notes the most memory that a process has had."""

    def __init__(self, pid: int) -> None:
        self.most = 0
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, self._process.memory_info().rss)

    def end(self) -> float:
        """Return the most, in MiB."""
        self._over.set()
        self._thread.join()
        return self.most / (1 << 20)


def main() -> int:
    """Do it and return the exit code."""
    kit = Kit()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _run(Plugged(kit), Path(folder))
    finally:
        kit.close()


def _run(shop: Plugged, folder: Path) -> int:
    shop.define(FLOW, folder)
    watch = Watch(shop.agent.pid)
    try:
        began = time.monotonic()
        run_id = shop.trigger("big")
        parts = shop.server.data_dir / "artifacts" / ".uploads"
        eventually(lambda: len(list(parts.glob("*/*.json"))) >= 10, SECONDS)
        shop.server.kill9()
        shop.server.start()
        eventually(lambda: shop.run(run_id).status >= 3, SECONDS)
        both = time.monotonic() - began
    finally:
        most = watch.end()
    run = shop.run(run_id)
    began = time.monotonic()
    (task_id,) = (job.task_id for job in run.jobs if job.name == "leaves")
    shop.muster("task", "artifacts", task_id, "--download", str(folder / "down"))
    down = time.monotonic() - began
    with (folder / "down" / "big.bin").open("rb") as file:
        digests = {hashlib.file_digest(file, "sha256").hexdigest()}
    for job in ("leaves", "takes"):
        digests |= {line.split()[0] for line in shop.log(run_id, job)}
    told = {
        "bytes": SIZE,
        "jobs": standing(run),
        "jobs_seconds": round(both, 1),
        "download_seconds": round(down, 1),
        "agent_most_mib": round(most, 1),
        "same_bytes": len(digests) == 1,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if told["same_bytes"] and most <= MOST_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
