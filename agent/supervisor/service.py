"""Serves the session over the socket: one connection at a time, orders in, events out."""

import contextlib
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from agent.spool import NO_ROOM, AttemptFolder, Spool, is_full
from agent.supervisor import frames
from agent.supervisor.attempt import Attempt
from agent.supervisor.conversation import Conversation
from agent.supervisor.crew import Crew
from agent.supervisor.folders import Folders
from agent.supervisor.frames import Message
from agent.supervisor.limits import Limits
from agent.supervisor.loop import Loop
from agent.supervisor.order import Order
from agent.supervisor.processes import Kin
from agent.supervisor.reaper import Reaper
from agent.supervisor.recovery import recover
from agent.supervisor.watchdog import Watchdog

_IDLE_SECONDS = 30.0
"""Without a session and without tasks for so long, the supervisor ends."""

_LOOK_EVERY = 0.25
"""Seconds between looks whether it is still needed."""

_ORDER_FIELDS = {field.name for field in fields(Order)}


class Service:
    """The supervisor's heart: what it runs, what it knows, and who listens."""

    def __init__(self, data_dir: Path, limits: Limits) -> None:
        self._data_dir = data_dir
        self._limits = limits
        self._spool = Spool(data_dir)
        self._folders = Folders(self._spool)
        self._loop = Loop()
        self._reaper = Reaper()
        self._crew = Crew()
        self._kin = Kin()
        self._attempts: dict[str, Attempt] = {}
        self._past: dict[str, Message] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._session: Conversation | None = None
        self._listens = False
        """Whether the session was welcomed: it hears of what changes after that."""
        self._ending = False
        self._idle_since = 0.0
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
        self._loop.on_signal(signal.SIGTERM, self._stop_all)
        self._spool.create()
        self._past = recover(self._spool)
        self._folders.clear()
        self._loop.on_signal(signal.SIGCHLD, self._reaper.collect)
        with frames.ShortPath(self._data_dir) as path, self._listener:
            Path(path).unlink(missing_ok=True)
            self._listener.bind(path)
            self._listener.listen(4)
            self._listener.setblocking(False)
            self._wait_for_session()
            Watchdog(self._loop, lambda: list(self._attempts.values())).start()
            self._loop.run()
            Path(path).unlink(missing_ok=True)
        self._folders.clear()

    def _stop_all(self) -> None:
        """Stops every attempt with its grace, then ends; the host is going down."""
        self._ending = True
        for attempt in list(self._attempts.values()):
            attempt.stop("stopped", attempt.order.kill_grace, "the agent was stopped")

    def _wait_for_session(self) -> None:
        self._idle_since = time.monotonic()
        self._listen()
        self._look_whether_needed()

    def _listen(self) -> None:
        self._loop.watch(self._listener.fileno(), self._accept)

    def _look_whether_needed(self) -> None:
        now = time.monotonic()
        if self._running():
            self._idle_since = now
        elif self._ending or now - self._idle_since > _IDLE_SECONDS:
            self._loop.end()
        self._loop.at(self, now + _LOOK_EVERY, self._look_whether_needed)

    def _accept(self) -> None:
        # The next session waits until all that this one says has been done.
        self._loop.unwatch(self._listener.fileno())
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it went away again, or no descriptor is left
            self._loop.at(self._listener, time.monotonic() + _LOOK_EVERY, self._listen)
            return
        self._loop.forget(self)
        self._session = Conversation(self._loop, connection, self._greet, self._hung_up)

    def _greet(self, hello: Message) -> None:
        session = self._session
        if session is None:
            return
        if hello.get("protocol") != frames.PROTOCOL:
            session.say({"kind": "refused", "protocol": frames.PROTOCOL})
            session.hang_up()
            return
        self._ending = False
        states = [attempt.state() for attempt in self._attempts.values()]
        states += self._past.values()
        welcome = {"kind": "welcome", "protocol": frames.PROTOCOL, "attempts": states}
        # Those from before can do neither, and do not say so.
        session.say({**welcome, "confines": True, "plans": True})
        session.heard = self._obey
        self._listens = True

    def _hung_up(self) -> None:
        self._session = None
        self._listens = False
        self._wait_for_session()

    def _obey(self, message: Message) -> None:
        """Carries out one order; one that cannot be carried out must not end the tasks."""
        try:
            self._handlers[message["kind"]](message)
        except Exception:
            with contextlib.suppress(OSError):  # the log may lie on a full disk
                traceback.print_exc()

    def _emit(self, event: Message) -> None:
        if self._session is not None and self._listens:
            self._session.say(event)

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
            order,
            folder,
            self._folders,
            self._limits,
            self._loop,
            self._reaper,
            self._kin,
            others,
            self._emit,
        )
        try:
            attempt.prepare()
        except OSError as error:
            attempt.end = _not_started(error)
            self._past[order.lease] = attempt.state()
            self._emit({"kind": "ended", **attempt.state()})
            return
        self._attempts[order.lease] = attempt
        attempt.start()

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
        self._attempts.pop(lease, None)
        self._past.pop(lease, None)
        folder = attempt.folder if attempt is not None else self._spool.folder(lease)
        again = attempt is not None and not attempt.outlived
        if not self._folders.end(folder, again=again) and folder.exists:
            trash = AttemptFolder(folder.path.with_name(f".trash-{folder.path.name}"))
            folder.move(trash)
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


def ignore_the_terminal() -> None:
    """Lets ends of the session's terminal not matter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
