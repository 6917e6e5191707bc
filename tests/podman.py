"""A real podman and an image of busybox, for the tests that ask for one; `make containers`."""

import os
import shutil
import subprocess
import uuid
from contextlib import contextmanager

import pytest

from plugins.container import engine

RUNS_IMAGES = engine.find("", engine.environment(os.environ, ())) is not None
"""Whether agents on this machine run images; then no task waits for one that does."""

without_engine = pytest.mark.skipif(RUNS_IMAGES, reason="this machine runs images")

APPLETS = ("sh", "cat", "sleep", "echo", "env", "id", "pwd")


def command(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)  # noqa: S603


def names():
    """Return what containers there are."""
    return command("podman", "ps", "--all", "--format", "{{.Names}}").stdout.split()


def leave(why):
    """Skip, and fail where somebody counts on podman."""
    if os.environ.get("MUSTER_TEST_PODMAN"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def busybox_image(folder):
    """Give the name of an image; where none can be made or run, leave with the reason."""
    podman, busybox = shutil.which("podman"), shutil.which("busybox")
    if podman is None or busybox is None:
        leave(
            "podman or a static busybox is missing: apt-get install podman crun busybox-static,"
            " then `make containers` as root"
        )
    tree = folder / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(busybox, tree / "bin" / "busybox")
    for name in APPLETS:
        (tree / "bin" / name).symlink_to("busybox")
    command("tar", "-C", tree, "-cf", f"{tree}.tar", ".")
    name = f"localhost/muster-test:{uuid.uuid4().hex[:8]}"
    done = command(podman, "import", f"{tree}.tar", name)
    if done.returncode:
        leave(f"podman cannot keep images here: {done.stderr.strip()[-300:]}")
    try:
        probe = ("run", "--rm", "--network=none", name, "/bin/sh", "-c", "echo works")
        done = command(podman, *probe)
        if done.stdout != "works\n":
            leave(
                "podman cannot run containers here (`make containers` may):"
                f" {done.stderr.strip()[-300:]}"
            )
        yield name
    finally:
        command(podman, "rmi", "--force", name)
