"""One thread waits for everything: descriptors, moments, signals."""

import os
import signal
import time

import pytest

from agent.supervisor.loop import Loop


@pytest.fixture
def loop():
    """A loop that ends by itself in the worst case."""
    before = signal.getsignal(signal.SIGUSR1)
    loop = Loop()
    loop.at("limit", time.monotonic() + 20, loop.end)
    yield loop
    signal.signal(signal.SIGUSR1, before)


def test_moments_come_in_time_and_once(loop):
    calls = []
    now = time.monotonic()
    loop.at("first", now, lambda: calls.append("first"))
    loop.at("forgotten", now, lambda: calls.append("forgotten"))
    loop.at("moved", now, lambda: calls.append("too early"))
    loop.at("moved", now + 0.02, loop.end)
    loop.forget("forgotten")
    loop.run()
    assert calls == ["first"]
    assert time.monotonic() >= now + 0.02


def test_what_raises_does_not_harm_the_rest(loop, capsys):
    def fail():
        raise ValueError("this one")

    loop.soon(fail)
    loop.soon(loop.end)
    loop.run()
    assert "this one" in capsys.readouterr().err


def test_before_it_waits_all_else_is_done(loop):
    calls = []
    loop.before_waiting(lambda: calls.append("last"))
    loop.before_waiting(loop.end)
    loop.soon(lambda: loop.soon(lambda: calls.append("first")))
    loop.run()
    assert calls == ["first", "last"]


def test_a_signal_is_handled_between_calls(loop):
    calls = []
    loop.on_signal(signal.SIGUSR1, lambda: (calls.append("handler"), loop.end()))

    def interrupted():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
        calls.append("call")

    loop.soon(interrupted)
    loop.run()
    assert calls == ["call", "handler"]


def test_a_descriptor_is_watched_until_it_is_not(loop):
    reader, writer = os.pipe()
    calls = []

    def ready():
        calls.append(os.read(reader, 100))
        if len(calls) == 2:
            loop.unwatch(reader)
            os.write(writer, b"not for you")
            loop.at("end", time.monotonic() + 0.02, loop.end)
        else:
            os.write(writer, b"more")

    loop.watch(reader, ready)
    os.write(writer, b"some")
    loop.run()
    assert calls == [b"some", b"more"]
    os.close(reader)
    os.close(writer)
