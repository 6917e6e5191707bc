"""How soon a plugin that is written with the kit in Python serves."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator

from bench.figure import Figure
from bench.lab import Lab
from bench.numbers import median, rounded
from bench.programs import ROOT, Program

READY = "plugin_ready_ms"
FIGURES = (READY,)

STARTS = 20
PLUGIN = ROOT / "examples" / "plugins" / "word-count" / "main.py"
COOKIE = {"MUSTER_PLUGIN": "9d9f7bd0c2e64a1c8f5e3b1d6a7c4e20"}


async def measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Figure]:
    """See Family."""
    starts = lab.count(STARTS)
    rounds = [
        median([await asyncio.to_thread(_start, lab) for _ in range(starts)])
        for _ in range(lab.rounds)
    ]
    settings = {"plugin": "word-count", "rounds": [rounded(value) for value in rounds]}
    yield Figure(READY, median(rounds), "ms", starts, settings)


def _start(lab: Lab) -> float:
    """Return how many milliseconds it takes from the start of its process to the handshake."""
    folder = lab.new_folder("p")
    environment = {**COOKIE, "PLUGIN_UNIX_SOCKET_DIR": str(folder)}
    began = time.perf_counter()
    program = Program("plugin", [sys.executable, "-B", PLUGIN], folder, environment)
    try:
        program.wait_for(lambda: (folder / "plugin.stdout").read_text().endswith("|grpc\n"))
        return (time.perf_counter() - began) * 1000
    finally:
        program.stop()
