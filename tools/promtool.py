"""Puts promtool into a folder, out of Debian's package `prometheus`: nothing is installed.

`make install` calls it. promtool is wanted by tests only, so whoever cannot have it (no apt, no
network) is told why and gets 0; those tests are skipped then. Root is not needed: apt keeps its
lists in a folder that is thrown away.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "prometheus"
SECONDS = 60
APT = ("apt-get", "-o", "APT::Sandbox::User=", "-o", "Acquire::http::Timeout=15")


class NotToBeHadError(Exception):
    """There is no way to promtool here."""


def main(folder: Path) -> str:
    """Return a sentence about where promtool is, or why it is not there."""
    if found := shutil.which("promtool", path=f"{folder}{os.pathsep}{os.environ['PATH']}"):
        return f"promtool is {found}."
    try:
        with tempfile.TemporaryDirectory() as scratch:
            program = _unpacked(_downloaded(Path(scratch)))
            shutil.copy(program, folder / "promtool")
    except NotToBeHadError as error:
        return f"There is no promtool, and tests that want it are skipped: {error}."
    return f"promtool is {folder / 'promtool'}."


def _downloaded(scratch: Path) -> Path:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NotToBeHadError(f"no {program} here; install promtool yourself")
    try:
        _run(scratch, *APT, "download", PACKAGE)
    except NotToBeHadError:  # no lists yet, or outdated ones
        own_lists = _own_lists(scratch)
        _run(scratch, *APT, *own_lists, "update")
        _run(scratch, *APT, *own_lists, "download", PACKAGE)
    return next(scratch.glob(f"{PACKAGE}_*.deb"))


def _own_lists(scratch: Path) -> list[str]:
    """Return options that let anybody update lists, which are seen by this call alone."""
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    places = {"Dir::State::Lists": scratch / "lists", "Dir::Cache": scratch / "cache"}
    options = [f"{name}={place}" for name, place in places.items()]
    return [part for option in options for part in ("-o", option)]


def _unpacked(package: Path) -> Path:
    _run(package.parent, "dpkg-deb", "--extract", package.name, "unpacked")
    program = package.parent / "unpacked" / "usr" / "bin" / "promtool"
    if not program.exists():
        raise NotToBeHadError(f"the package {PACKAGE} does not have it")
    return program


def _run(folder: Path, *command: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 (our own words)
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotToBeHadError(f"{command[0]} took longer than {SECONDS} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise NotToBeHadError(f"{' '.join(command[-2:])}: {said[-1] if said else 'failed'}")


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1])) + "\n")
