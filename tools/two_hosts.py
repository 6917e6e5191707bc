"""Follows docs/tls.md on two hosts: network namespaces of this machine, joined by one cable.

Needs root and `ip`. One host sets up a server and starts it; the other has nothing but a copy of
three files, enrols as an agent, logs in and runs a command. All of it ends by itself.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

BIN = Path(sys.executable).parent
SERVER, WORKER = "muster-two-a", "muster-two-b"
ADDRESSES = {SERVER: "10.77.0.1", WORKER: "10.77.0.2"}
READY_SECONDS = 20.0


class StoryError(Exception):
    """The story does not go as the documentation says; the message says where."""


def main() -> int:
    """Tell the story and return the exit code."""
    with ExitStack() as undo:
        # Outside of /tmp, of which hardened tasks have their own, and open to their user.
        folder = Path(tempfile.mkdtemp(prefix="two-hosts-", dir="/var/tmp"))
        folder.chmod(0o711)
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            _lay_cable(undo)
            _tell(folder, undo)
        except StoryError as error:
            sys.stderr.write(f"two hosts: {error}\n")
            return 1
    sys.stdout.write("two hosts: server and agent work over TLS with an enrolment token\n")
    return 0


def _lay_cable(undo: ExitStack) -> None:
    for host in ADDRESSES:
        _run("ip", "netns", "add", host)
        undo.callback(subprocess.run, ["ip", "netns", "del", host], check=False)
    _run("ip", "link", "add", "two-a", "netns", SERVER, "type", "veth", "peer", "two-b", "netns",
         WORKER)  # fmt: skip
    for host, link in ((SERVER, "two-a"), (WORKER, "two-b")):
        _run("ip", "-n", host, "address", "add", f"{ADDRESSES[host]}/24", "dev", link)
        for device in (link, "lo"):
            _run("ip", "-n", host, "link", "set", device, "up")


def _tell(folder: Path, undo: ExitStack) -> None:
    server, worker = folder / "server", folder / "worker"
    worker.mkdir(mode=0o711)
    address = ADDRESSES[SERVER]
    _on(SERVER, worker, "muster-server", "--data-dir", str(server), "init", address)
    _start(SERVER, folder, undo, "muster-server", "--config", str(server / "muster.toml"))
    for name in ("ca.pem", "enrolment.token", "admin.token"):
        shutil.copy(server / name, worker)  # what the documentation has people carry over
    plane = ("--server", f"{address}:50051", "--tls-ca", "ca.pem")
    _start(
        WORKER, worker, undo, "muster-agent", "--hardened", *plane,
        "--enrolment-token-file", "enrolment.token", "--data-dir", "agent", "--name", "worker",
    )  # fmt: skip
    _on(WORKER, worker, "muster", "login", *plane, "--token-stdin",
        stdin=(worker / "admin.token").read_text())  # fmt: skip
    said = _on(WORKER, worker, "muster", "exec", "--", "echo", "over the cable")
    if said != "over the cable\n":
        raise StoryError(f"the task printed {said!r}")
    listed = _on(WORKER, worker, "muster", "agent", "list")
    if "worker" not in listed:
        raise StoryError("the agent is not listed")
    nobody = ("env", "MUSTER_CONFIG_DIR=nowhere", str(BIN / "muster"))  # knows no authority
    plain = _command(WORKER, worker, *nobody, "ping", "--server", f"{address}:50051")
    if plain.returncode == 0:
        raise StoryError("the server answers in plain text")


def _start(host: str, folder: Path, undo: ExitStack, program: str, *arguments: str) -> None:
    out = folder / f"{program}.out"
    with out.open("wb") as told:
        process = subprocess.Popen(  # noqa: S603 (our own programs)
            _within(host, program, *arguments), cwd=folder, stdout=told, stderr=subprocess.STDOUT
        )
    undo.callback(_end, process)
    deadline = time.monotonic() + READY_SECONDS
    while "ready " not in out.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise StoryError(f"{program} is not ready:\n{out.read_text()}")
        time.sleep(0.05)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _on(host: str, folder: Path, program: str, *arguments: str, stdin: str = "") -> str:
    done = _command(host, folder, program, *arguments, stdin=stdin)
    if done.returncode:
        raise StoryError(f"{program} {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def _command(
    host: str, folder: Path, program: str, *arguments: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 (our own programs)
        _within(host, program, *arguments),
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _within(host: str, program: str, *arguments: str) -> list[str]:
    settings = ["MUSTER_KEYRING=off", "MUSTER_CONFIG_DIR=config"]
    return [
        "ip",
        "netns",
        "exec",
        host,
        "env",
        *settings,
        shutil.which(program, path=BIN) or program,
        *arguments,
    ]


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise StoryError(f"there is no {command[0]} on this machine") from None
    if done.returncode:
        raise StoryError(f"{_words(command)}: {done.stderr.strip()} (network namespaces need root)")


def _words(command: Sequence[str]) -> str:
    return " ".join(command)


if __name__ == "__main__":
    sys.exit(main())
