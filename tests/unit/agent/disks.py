"""Small disks for tests: real ones where this user may mount, limits of the kernel everywhere."""

import contextlib
import os
import resource
import shutil
import subprocess

DISK_BYTES = 4 * 1024 * 1024
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class SmallDisk:
    """A tmpfs of a few MiB, and a file that others fill it with.

    Attributes:
        reserves: Whether what was reserved can be written when it is full.
    """

    reserves = True

    def __init__(self, path):
        self.path = path
        self._ballast = path / "of-others"

    def attach(self):
        size = f"size={DISK_BYTES}"
        mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", self.path]
        subprocess.run(mount, check=True)  # noqa: S603 - our own path

    def detach(self):
        subprocess.run(["umount", "--lazy", self.path], check=True)  # noqa: S603, S607

    def fill(self, _):
        """Leaves not a byte."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (64 * 1024, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)
        assert os.statvfs(self.path).f_bavail == 0

    def free(self, _):
        self._ballast.unlink()


class LimitedDisk:
    """A folder in which an agent's processes can be kept from writing, by the kernel."""

    reserves = False

    def __init__(self, path):
        self.path = path

    def attach(self):
        pass

    def detach(self):
        pass

    def fill(self, agent):
        self._limit(agent, (0, resource.RLIM_INFINITY))

    def free(self, agent):
        self._limit(agent, UNLIMITED)

    def _limit(self, agent, limits):
        for pid in (agent.process.pid, agent.supervisor_pid()):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def kinds():
    """Returns the kinds of disk that can be had here."""
    return [LimitedDisk, SmallDisk] if _may_mount() else [LimitedDisk]


def _may_mount():
    if os.getuid() != 0 or shutil.which("unshare") is None:
        return False
    attempt = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(attempt, capture_output=True).returncode == 0  # noqa: S603 - our own words
