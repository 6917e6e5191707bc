"""A loop that hangs lets no task outlive its lease."""

import pytest

from agent.supervisor.watchdog import Watchdog


class Hanging:
    """A loop as the watchdog sees it."""

    def __init__(self, busy_since):
        self.busy_since = busy_since


class Leased:
    """Remembers at what moments it was to be killed."""

    def __init__(self):
        self.moments = []

    def kill_overdue(self, now):
        self.moments.append(now)


@pytest.mark.parametrize(("busy_since", "looks"), [(100.0, [110.0]), (109.0, []), (None, [])])
def test_it_steps_in_only_where_the_loop_hangs(busy_since, looks):
    leased = Leased()
    Watchdog(Hanging(busy_since), lambda: [leased]).look(110.0)
    assert leased.moments == looks


def test_one_that_cannot_be_looked_at_does_not_save_the_next():
    class Broken:
        def kill_overdue(self, _):
            raise OSError

    leased = Leased()
    Watchdog(Hanging(100.0), lambda: [Broken(), leased]).look(110.0)
    assert leased.moments == [110.0]
