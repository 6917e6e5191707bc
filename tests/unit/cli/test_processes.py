import asyncio
import textwrap
from datetime import timedelta

import pytest

from cli.failure import CommandFailed
from cli.interrupt import Interrupt
from cli.machine import Machine

QUICK = timedelta(milliseconds=50)

WAITING = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("hello")
print("ready grpc=127.0.0.1:1 http=127.0.0.1:2", flush=True)
while True:
    signal.pause()
"""
STUBBORN = WAITING.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
PATIENT = """
import signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1) or len(asked) == 2 and sys.exit(0))
print("ready", flush=True)
while True:
    time.sleep(60)
"""
FAILING = "import sys; print('no port is free', file=sys.stderr); sys.exit(3)"
ENDING = "print('ready', flush=True); print('bye')"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose programs are the modules that a test writes."""
    modules = tmp_path / "modules"
    modules.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(modules))
    for name in ("waiting", "stubborn", "patient", "failing", "ending"):
        (modules / f"{name}_program.py").write_text(textwrap.dedent(globals()[name.upper()]))
    return Machine(tmp_path)


async def test_a_program_says_where_it_is_when_it_is_ready(machine):
    assert await machine.start("waiting_program") == {
        "grpc": "127.0.0.1:1",
        "http": "127.0.0.1:2",
    }
    await machine.stop(Interrupt())
    (program,) = machine.programs
    assert program.process.returncode == 0
    assert "hello" in program.tail()


async def test_a_program_that_does_not_start_shows_the_end_of_its_log(machine):
    with pytest.raises(CommandFailed, match="ended with 3 before it was ready") as error:
        await machine.start("failing_program")
    assert "no port is free" in str(error.value)
    await machine.stop(Interrupt())


async def test_only_what_this_start_printed_is_shown(machine):
    (machine.data / "failing_program.log").write_text("words of an earlier start\n")
    with pytest.raises(CommandFailed) as error:
        await machine.start("failing_program")
    assert "no port is free" in str(error.value)
    assert "earlier start" not in str(error.value)
    await machine.stop(Interrupt())


async def test_a_program_that_ends_by_itself_ends_the_watch(machine):
    await machine.start("waiting_program")
    await machine.start("ending_program")
    with pytest.raises(CommandFailed, match="ended by itself with 0") as error:
        await machine.watch()
    assert "bye" in str(error.value)
    await machine.stop(Interrupt())
    assert [program.process.returncode for program in machine.programs] == [0, 0]


async def test_a_program_that_does_not_stop_is_killed(machine):
    await machine.start("stubborn_program")
    (program,) = machine.programs
    await program.stop(QUICK)
    assert program.process.returncode == -9


async def test_a_second_signal_hurries_all_whenever_it_comes(machine):
    for name in ("first", "second", "third"):
        await machine.start("patient_program", name=name)
    interrupt = Interrupt()
    interrupt.insisted.set()
    async with asyncio.timeout(20):
        await machine.stop(interrupt)
    assert [program.process.returncode for program in machine.programs] == [0, 0, 0]
