"""The log of an attempt that has printed nothing: nothing to send."""

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2


class NoLog:
    """Answers like a LogShipper of no lines; see there."""

    superseded = False

    def __init__(self, *, done: bool = True) -> None:
        self.done = done

    def summary(self) -> agent_pb2.LogSummary:
        """Returns what the whole log amounts to: nothing."""
        return agent_pb2.LogSummary()

    def next_batch(self) -> None:
        """Returns None: there is never a batch."""

    def acknowledge(self, _ack: stream_pb2.LogAck) -> None:
        """Takes an answer that concerns nothing."""

    def resume(self) -> None:
        """Goes on with nothing."""

    def reconnect(self) -> None:
        """Goes on with nothing over a new stream."""
