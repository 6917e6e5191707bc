"""Serves the session over the socket: one connection at a time, orders in, events out."""

import contextlib
import queue
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from agent.spool import NO_ROOM, AttemptFolder, Spool, is_full
from agent.supervisor import frames
from agent.supervisor.attempt import Attempt
from agent.supervisor.crew import Crew
from agent.supervisor.frames import Message
from agent.supervisor.limits import Limits
from agent.supervisor.order import Order
from agent.supervisor.processes import Kin
from agent.supervisor.reaper import Reaper
from agent.supervisor.recovery import recover

_IDLE_SECONDS = 30.0
"""Without a session and without tasks for so long, the supervisor ends."""

_ORDER_FIELDS = {field.name for field in fields(Order)}


class Service:
    """The supervisor's heart: what it runs, what it knows, and who listens."""

    def __init__(self, data_dir: Path, limits: Limits) -> None:
        self._data_dir = data_dir
        self._limits = limits
        self._spool = Spool(data_dir)
        self._reaper = Reaper()
        self._crew = Crew()
        self._kin = Kin()
        self._lock = threading.Lock()
        self._attempts: dict[str, Attempt] = {}
        self._past: dict[str, Message] = {}
        self._outbox: queue.SimpleQueue[Message | None] | None = None
        self._ending = False
        self._spawned = 0
        self._handlers: dict[str, Callable[[Message], None]] = {
            "start": self._start,
            "stop": self._stop,
            "renew": self._renew,
            "arm": self._arm,
            "forget": self._forget,
            "shutdown": self._shutdown,
        }

    def run(self) -> None:
        """Cleans up after a predecessor, then serves until it is not needed any more."""
        self._spool.create()
        self._past = recover(self._spool)
        self._reaper.start()
        with frames.ShortPath(self._data_dir) as path, socket.socket(socket.AF_UNIX) as listener:
            Path(path).unlink(missing_ok=True)
            listener.bind(path)
            listener.listen(4)
            listener.settimeout(0.25)
            self._accept(listener)
            Path(path).unlink(missing_ok=True)

    def stop_all(self, *_: object) -> None:
        """Stops every attempt with its grace, then ends; the host is going down."""
        self._ending = True
        for attempt in list(self._attempts.values()):
            attempt.stop("stopped", attempt.order.kill_grace, "the agent was stopped")

    def _accept(self, listener: socket.socket) -> None:
        idle_since = time.monotonic()
        while True:
            if self._running():
                idle_since = time.monotonic()
            elif self._ending or time.monotonic() - idle_since > _IDLE_SECONDS:
                return
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            # The next session waits until all that the last one said has been done.
            with connection:
                self._serve(connection)
            idle_since = time.monotonic()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        try:
            hello = frames.receive(connection)
            if hello is None or hello.get("protocol") != frames.PROTOCOL:
                connection.sendall(frames.encode({"kind": "refused", "protocol": frames.PROTOCOL}))
                return
            self._ending = False
            outbox = self._welcome()
            writer = threading.Thread(target=_write, args=(connection, outbox), daemon=True)
            writer.start()
            while (message := frames.receive(connection)) is not None:
                self._obey(message)
        except (OSError, frames.FrameError):
            pass  # the session died in the middle of a word; the next one starts afresh
        finally:
            self._hang_up()

    def _obey(self, message: Message) -> None:
        """Carries out one order; one that cannot be carried out must not end the tasks."""
        try:
            self._handlers[message["kind"]](message)
        except Exception:
            with contextlib.suppress(OSError):  # the log may lie on a full disk
                traceback.print_exc()

    def _welcome(self) -> "queue.SimpleQueue[Message | None]":
        outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        with self._lock:
            states = [attempt.state() for attempt in self._attempts.values()]
            states += self._past.values()
            outbox.put({"kind": "welcome", "protocol": frames.PROTOCOL, "attempts": states})
            self._outbox = outbox
        return outbox

    def _hang_up(self) -> None:
        with self._lock:
            outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.put(None)

    def _emit(self, event: Message) -> None:
        with self._lock:
            if self._outbox is not None:
                self._outbox.put(event)

    def _running(self) -> set[int]:
        attempts = list(self._attempts.values())
        return {attempt.main_pid or -1 for attempt in attempts if attempt.end is None}

    def _start(self, message: Message) -> None:
        order = Order(**{name: message[name] for name in _ORDER_FIELDS & message.keys()})
        if order.lease in self._attempts or order.lease in self._past:
            return
        folder = self._spool.folder(order.lease)

        def others() -> set[int]:
            return self._running() - {attempt.main_pid or 0}

        attempt = Attempt(
            order, folder, self._limits, self._reaper, self._crew, self._kin, others, self._emit
        )
        try:
            try:
                attempt.prepare()
            except FileNotFoundError:  # other hands have deleted the spool
                self._spool.create()
                attempt.prepare()
            self._attempts[order.lease] = attempt
            self._crew.do(attempt.run)
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            attempt.end = _not_started(error)
            self._attempts.pop(order.lease, None)
            self._past[order.lease] = attempt.state()
            folder.remove()
            self._emit({"kind": "ended", **attempt.state()})

    def _stop(self, message: Message) -> None:
        if attempt := self._attempts.get(message["lease"]):
            attempt.stop(message["cause"], message["grace"], message["message"])

    def _renew(self, message: Message) -> None:
        for lease, moment in message["stop_by"].items():
            if attempt := self._attempts.get(lease):
                attempt.move_stop_by(moment)

    def _arm(self, message: Message) -> None:
        if attempt := self._attempts.get(message["lease"]):
            attempt.arm(message["segment"], message["offset"])

    def _forget(self, message: Message) -> None:
        lease = message["lease"]
        attempt = self._attempts.get(lease)
        if attempt is not None and attempt.end is None:
            return
        with self._lock:
            self._attempts.pop(lease, None)
            self._past.pop(lease, None)
        folder = self._spool.folder(lease)
        if not folder.remove_plain() and folder.exists:
            trash = AttemptFolder(folder.path.with_name(f".trash-{folder.path.name}"))
            folder.path.rename(trash.path)
            self._crew.do(trash.remove)

    def _shutdown(self, _: Message) -> None:
        self._ending = True


def _not_started(error: Exception) -> Message:
    return {
        "cause": NO_ROOM if isinstance(error, OSError) and is_full(error) else "not_started",
        "exit_code": 0,
        "message": f"could not start: {error}",
        "failure": "infrastructure",
        "started_at": 0,
        "ended_at": time.time_ns() // 1_000_000,
    }


def _write(connection: socket.socket, outbox: "queue.SimpleQueue[Message | None]") -> None:
    while (message := outbox.get()) is not None:
        try:
            connection.sendall(frames.encode(message))
        except OSError:
            return  # the reading side sees the same end


def handle_signals(service: Service) -> None:
    """Lets SIGTERM stop everything; other ends of the session's terminal do not matter."""
    signal.signal(signal.SIGTERM, service.stop_all)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
