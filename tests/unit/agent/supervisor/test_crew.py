"""Work begins at once, in a thread that is used again when it is free."""

import queue
import threading

from agent.supervisor.crew import Crew


def test_work_does_not_wait_for_work():
    crew, meet = Crew(), threading.Barrier(5, timeout=20)
    for _ in range(4):
        crew.do(meet.wait)
    meet.wait()


def test_a_free_thread_is_used_again():
    crew, done, used = Crew(), queue.SimpleQueue(), set()
    for _ in range(1000):
        crew.do(lambda: done.put(threading.current_thread()))
        thread = done.get(timeout=20)
        if thread in used:
            return
        used.add(thread)
    raise AssertionError("a thousand threads for one piece of work at a time")


def test_work_that_raises_does_not_harm_the_next(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    crew, done = Crew(), queue.SimpleQueue()

    def fail():
        raise ValueError

    for _ in range(3):
        crew.do(fail)
    crew.do(lambda: done.put("done"))
    assert done.get(timeout=20) == "done"
