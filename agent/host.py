"""What the agent tells about the host it runs on."""

import os
import platform
import socket
from pathlib import Path

import psutil

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def facts() -> agent_pb2.RegisterRequest:
    """Returns a registration with the host's part filled in."""
    machine = platform.machine()
    return agent_pb2.RegisterRequest(
        hostname=socket.gethostname(),
        ip=_address(),
        os=platform.system().lower(),
        arch=_ARCHITECTURES.get(machine, machine),
    )


def metrics(data_dir: Path, running: int) -> stream_pb2.AgentMetrics:
    """Returns measurements of this moment; processor use is since the last call."""
    return stream_pb2.AgentMetrics(
        cpu_usage=psutil.cpu_percent(interval=None),
        memory_usage=psutil.virtual_memory().percent,
        disk_usage=psutil.disk_usage(os.fspath(data_dir)).percent,
        running_tasks=running,
        custom_metrics={
            "load_1m": f"{psutil.getloadavg()[0]:.2f}",
            "memory_available_bytes": str(psutil.virtual_memory().available),
            "disk_free_bytes": str(psutil.disk_usage(os.fspath(data_dir)).free),
        },
    )


def _address() -> str:
    """Returns the first address that others could reach, for people to read."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family is socket.AF_INET and not address.address.startswith("127."):
                return address.address
    return "127.0.0.1"
