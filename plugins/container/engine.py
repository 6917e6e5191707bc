"""The command lines of podman, docker and nerdctl, which agree on all that is needed here."""

import hashlib
import os
import pwd
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ENGINES = ("podman", "docker", "nerdctl")
"""In the order they are tried: the first needs no service and no rights."""

OWNER, PROCESS = "muster.owner", "muster.process"
"""Labels: which agent a container is of, and which process removes it."""

TIDIES = "MUSTER_TIDIES"
"""Variable of commands that remove a container: the agent does not ask them to end."""

GENERAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TOLD = (
    "MUSTER_TASK_ID",
    "MUSTER_RUN_ID",
    "MUSTER_ATTEMPT",
    "MUSTER_OUTPUT",
    "MUSTER_SERVER",
    "MUSTER_TLS",
)
"""Variables that every task has, in a container too."""

STEERING = re.compile(
    r"PATH|HOME|TMPDIR|TMP|LD_.*|XDG_.*|STORAGE_.*|CONTAINERS_.*|CONTAINERD_.*|NERDCTL_.*|CNI_PATH|"
    r"CONTAINER_(HOST|CONNECTION|SSHKEY)|DOCKER_(HOST|CONFIG|CONTEXT|CERT_PATH|TLS|TLS_VERIFY)"
)
"""Variables of a task that would steer the engine, and are meant for the container alone."""


@dataclass(frozen=True)
class Wanted:
    """A container to run.

    Attributes:
        image: What it is made of.
        name: What it is called.
        labels: What it is found by.
        mounts: Folders of the host that it has at the same path.
        folder: Where it starts.
        env: Names of variables; their values are read from the engine's own environment.
        values: Variables with their values, none of them secret.
        script: Path of what /bin/sh runs; empty runs what the image says.
        user: Who it is; empty leaves it to the image.
        network: Whether it has one.
        pull: When the image is fetched: missing, always or never.
        memory: Most memory, such as 512m; empty for no limit.
        cpus: Most processors; 0 for no limit.
        pids: Most processes; 0 for no limit.
    """

    image: str
    name: str
    labels: Mapping[str, str]
    mounts: Iterable[Path]
    folder: Path
    env: Iterable[str] = ()
    values: tuple[tuple[str, str], ...] = ()
    script: str = ""
    user: str = ""
    network: bool = True
    pull: str = "missing"
    memory: str = ""
    cpus: float = 0
    pids: int = 0


def run_argv(engine: str, program: str, wanted: Wanted) -> list[str]:
    """Return the command that runs a container and removes it at its end."""
    argv = [program, "run", "--rm", f"--name={wanted.name}", f"--pull={wanted.pull}"]
    argv += [f"--label={name}={value}" for name, value in wanted.labels.items()]
    argv += [f"--volume={folder}:{folder}" for folder in wanted.mounts]
    argv += [f"--workdir={wanted.folder}"]
    argv += [f"--env={name}" for name in wanted.env]
    argv += [f"--env={name}={value}" for name, value in wanted.values]
    if engine != "nerdctl":  # it knows neither; they keep SELinux's labels and a second log away
        argv += ["--security-opt=label=disable", "--log-driver=none"]
    if not wanted.network:
        argv.append("--network=none")
    if wanted.user:
        argv.append(f"--user={wanted.user}")
    if wanted.memory:
        argv.append(f"--memory={wanted.memory}")
    if wanted.cpus:
        argv.append(f"--cpus={wanted.cpus:g}")
    if wanted.pids:
        argv.append(f"--pids-limit={wanted.pids}")
    if not wanted.script:
        return [*argv, wanted.image]
    return [*argv, "--entrypoint=/bin/sh", wanted.image, "-e", wanted.script]


def stop_argv(program: str, name: str, seconds: int) -> list[str]:
    """Return the command that ends a container: at once, or after SIGTERM and some seconds."""
    return [program, "stop", "-t", str(seconds), name]


def remove_argv(program: str, names: Iterable[str]) -> list[str]:
    """Return the command that ends and removes containers."""
    return [program, "rm", "--force", *names]


def list_argv(program: str, owner: str) -> list[str]:
    """Return the command that lists ids of an agent's containers."""
    return [program, "ps", "--all", "--quiet", "--no-trunc", f"--filter=label={OWNER}={owner}"]


def inspect_argv(program: str, ids: Iterable[str]) -> list[str]:
    """Return the command that prints the id and the process of containers, one a line."""
    form = f'{{{{.ID}}}} {{{{index .Config.Labels "{PROCESS}"}}}}'
    return [program, "inspect", f"--format={form}", *ids]


def find(engine: str, env: Mapping[str, str]) -> tuple[str, str] | None:
    """Return an engine's name and program; without a name of the first that can be used."""
    for name in [engine] if engine else ENGINES:
        program = shutil.which(name, path=env["PATH"])
        if program and (engine or served(name, env)):
            return name, program
    return None


def served(engine: str, env: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Tell whether the service that an engine needs seems to be there."""
    own = Path(env.get("XDG_RUNTIME_DIR", "/nowhere"))
    if engine == "docker":
        return "DOCKER_HOST" in env or (root / "run/docker.sock").is_socket()
    if engine == "nerdctl":
        shared = os.getuid() == 0 and (root / "run/containerd/containerd.sock").is_socket()
        return shared or (own / "containerd-rootless").is_dir()
    return True


def environment(given: Mapping[str, str], passed: Iterable[str]) -> dict[str, str]:
    """Return what the engine is started with: its own settings, and what it hands on.

    Images and settings are in the user's home, which is not the task's: that is its workspace.
    """
    mine = {name for name in passed if STEERING.fullmatch(name)}
    env = {
        name: value
        for name, value in given.items()
        if name not in mine and not name.startswith("PLUGIN_")
    }
    env.setdefault("PATH", GENERAL_PATH)
    user = os.getuid()
    try:
        env["HOME"] = pwd.getpwuid(user).pw_dir
    except KeyError:
        env.pop("HOME", None)
    runtime = Path(f"/run/user/{user}")
    if runtime.is_dir():
        env.setdefault("XDG_RUNTIME_DIR", str(runtime))
        if (
            own := runtime / "docker.sock"
        ).is_socket():  # docker without rights, where it is set up
            env.setdefault("DOCKER_HOST", f"unix://{own}")
    return env


def user_of(engine: str, env: Mapping[str, str]) -> str:
    """Return who a container has to be, so that its files are the task's.

    Without rights, root in the container is the task's user outside. Docker's service has rights.
    """
    rootless = "/run/user/" in env.get("DOCKER_HOST", "")
    return (
        f"{os.getuid()}:{os.getgid()}"
        if engine == "docker" and os.getuid() and not rootless
        else ""
    )


def owner_of(host: str, spool: str) -> str:
    """Return a short name of the agent whose attempts are in a folder of a host."""
    return hashlib.sha256(f"{host}:{os.getuid()}:{spool}".encode()).hexdigest()[:16]


def name_of(mark: str, pid: int) -> str:
    """Return a container's name, by the task and the attempt that it is of."""
    return f"muster-{re.sub(r'[^A-Za-z0-9_.-]', '-', mark or 'task')[:100]}-{pid}"


def process_mark(pid: int) -> str:
    """Return what tells a process from all others, also later ones; empty where it is gone.

    One that has ended is gone, also while its parent has not collected it: not all hosts have an
    init that does.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else f"{pid}.{fields[19]}.{boot}"


def lives(mark: str) -> bool:
    """Tell whether the process with a mark is still there."""
    pid = mark.partition(".")[0]
    return pid.isdigit() and process_mark(int(pid)) == mark
