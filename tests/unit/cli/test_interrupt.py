"""Ctrl-C ends a command for certain, whenever it comes."""

import subprocess
import sys

import pytest

SLEPT_THROUGH = """
import asyncio, signal, threading, time

async def deed():
    def press():
        time.sleep(0.2)  # the loop is asleep by now; if not, the test says less, but never lies
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    await asyncio.Event().wait()
"""

SWALLOWED = """
import asyncio, os, signal

async def deed():
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()
"""

TURNED_INTO_AN_ERROR = """
import asyncio, os, signal

async def deed():
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ValueError from None
"""

INSISTED = """
import asyncio, os, signal, time

async def deed():
    loop = asyncio.get_running_loop()
    loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)
"""

RUN = """
import sys
from cli import interrupt

try:
    interrupt.run(deed())
except KeyboardInterrupt:
    sys.exit(130)
"""


def exit_code_of(program: str) -> int:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, timeout=30, check=False).returncode  # noqa: S603 - our own


@pytest.mark.parametrize(
    "deed",
    [SLEPT_THROUGH, SWALLOWED, TURNED_INTO_AN_ERROR, INSISTED],
    ids=["sleeps", "swallows_it", "makes_it_an_error", "is_stuck"],
)
def test_ctrl_c_ends_a_deed_that(deed):
    assert exit_code_of(deed + RUN) == 130


@pytest.mark.parametrize(("end", "code"), [("return 7", 7), ("raise SystemExit(9)", 9)])
def test_a_deed_nobody_interrupts_gives_what_it_gives(end, code):
    run = "import sys\nfrom cli import interrupt\nsys.exit(interrupt.run(deed()))"
    assert exit_code_of(f"async def deed():\n    {end}\n{run}") == code
