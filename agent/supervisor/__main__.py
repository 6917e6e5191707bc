"""Entry point of the supervisor: `python -m agent.supervisor --data-dir DIR`."""

import argparse
import fcntl
import os
import sys
import time
from pathlib import Path

from agent.spool import write_pid
from agent.supervisor.frames import LOCK_NAME
from agent.supervisor.limits import Limits
from agent.supervisor.reaper import adopt_orphans
from agent.supervisor.service import Service, ignore_the_terminal
from agent.supervisor.spawning import seal_descriptors

_LOCK_PATIENCE = 60.0
"""Seconds to wait for a predecessor that is on its way out."""


def main() -> int:
    """Runs the supervisor of one data directory and returns its exit code."""
    parser = argparse.ArgumentParser(prog="agent.supervisor")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--spool-bytes", type=int, default=Limits.spool_bytes)
    parser.add_argument("--segment-bytes", type=int, default=Limits.segment_bytes)
    parser.add_argument("--spare-disk", type=int, default=Limits.spare_disk)
    options = parser.parse_args()
    data_dir: Path = options.data_dir.resolve()
    if not _lock(data_dir):
        sys.stderr.write("another supervisor holds the data directory\n")
        return 1
    adopt_orphans()
    ignore_the_terminal()
    seal_descriptors()
    os.chdir(data_dir)
    limits = Limits(options.spool_bytes, options.spare_disk, options.segment_bytes)
    Service(data_dir, limits).run()
    return 0


def _lock(data_dir: Path) -> bool:
    """Takes the lock that makes this the only supervisor; it goes with the process."""
    descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    give_up = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                return False
            time.sleep(0.02)  # a lock tells nobody when it is free, and nothing else runs yet
            continue
        write_pid(descriptor)
        return True


if __name__ == "__main__":
    sys.exit(main())
