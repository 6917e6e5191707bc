"""`make containers`: runs the tests that want a real podman, also inside of a sandbox.

In a mount namespace of its own podman gets settings that work where networks may not be made, and
cgroups perhaps neither, and a store that goes with it. Needs root, and of Debian podman, crun,
busybox-static.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = {"podman": "podman", "crun": "crun", "busybox": "busybox-static"}
"""What is needed, and Debian's package of it."""

OWN = Path("/etc/containers")
TESTS = ("tests/unit/plugins/container", "tests/e2e/test_container_jobs.py")
CONTAINERS = """\
[containers]
cgroups = "{cgroups}"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""
STORAGE = """\
[storage]
driver = "vfs"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
SCRIPT = """\
set -e
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
mount --bind "$1" "$2"
shift 2
exec "$@"
"""


def main() -> int:
    """Run them and return the exit code."""
    missing = sorted(package for name, package in PROGRAMS.items() if shutil.which(name) is None)
    if missing or os.getuid():
        told = f"apt-get install {' '.join(missing)}" if missing else "run it as root"
        sys.stderr.write(f"containers: {told}\n")
        return 1
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        settings = folder / "settings"
        shutil.copytree(OWN, settings, symlinks=True)
        (settings / "containers.conf").write_text(CONTAINERS.format(cgroups=_cgroups()))
        (settings / "storage.conf").write_text(STORAGE.format(folder=folder))
        tests = [sys.executable, "-m", "pytest", "-n", "0", "-rs", *TESTS]
        return subprocess.run(  # noqa: S603 (our own words)
            ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", settings, OWN, *tests],  # noqa: S607
            env={**os.environ, "MUSTER_TEST_PODMAN": "required"},
            check=False,
        ).returncode


def _cgroups() -> str:
    """Return whether limits can be set here: in version 1's hierarchies, or in version 2's root."""
    root = Path("/sys/fs/cgroup")
    first = root / "pids" if (root / "pids").is_dir() else root
    return "enabled" if os.access(first / "cgroup.procs", os.W_OK) else "disabled"


if __name__ == "__main__":
    sys.exit(main())
