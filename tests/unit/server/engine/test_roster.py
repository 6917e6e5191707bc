from server.domain.labels import Selector
from server.engine.mailbox import Mailbox
from server.engine.roster import Roster
from server.engine.sessions import Session
from tests.fakes.core import needs


def session(roster, name, **labels):
    """Return a session with one free slot and a stream, in its place."""
    each = Session(1, name, f"{name}-session", 1, labels, v1=False)
    each.mailbox = Mailbox(pushes=True)
    each.roster = roster
    roster.place(each)
    return each


def names(roster, limit=9):
    """Return who wants work, each with whether it fits gpu=yes."""
    gpu = needs(gpu="yes")
    found = roster.hungry(lambda c: ["gpu"] if c.fits("gpu", gpu) else ["any"], limit)
    return [(each.agent_id, keys == {"gpu"}) for each, keys in found]


def test_agents_that_no_selector_tells_apart_are_one_class():
    roster = Roster()
    for number in range(5):
        session(roster, f"a{number}", hostname=f"h{number}", gpu="yes")
    assert len(roster) == 1
    roster.learn(Selector.of({"gpu": "yes"}))
    assert len(roster) == 1
    roster.learn(Selector.of({"hostname": "h1"}))
    assert len(roster) == 5


def test_agents_are_told_apart_as_soon_as_a_selector_does():
    roster = Roster()
    session(roster, "a", gpu="yes")
    session(roster, "b")
    roster.learn(Selector.of({"gpu": "yes"}))
    assert names(roster) == [("a", True), ("b", False)]


def test_who_wants_nothing_is_not_found():
    roster = Roster()
    one = session(roster, "one")
    for field in ("draining", "lost", "awaits_held"):
        setattr(one, field, True)
        assert names(roster) == []
        setattr(one, field, False)
        assert names(roster) == [("one", False)]
    one.reserved = 1
    assert names(roster) == []
    one.ahead = 1
    assert names(roster) == [("one", False)]
    one.mailbox = None
    assert names(roster) == []


def test_who_waits_longest_comes_first():
    roster = Roster()
    one, _, _ = (session(roster, name) for name in ("one", "two", "three"))
    one.reserved = 1
    one.reserved = 0
    assert names(roster, limit=2) == [("two", False), ("three", False)]


def test_who_is_gone_is_not_found():
    roster = Roster()
    one = session(roster, "one")
    roster.remove(one)
    one.slots = 5
    assert names(roster) == []


def test_classes_take_turns_at_being_first():
    roster = Roster()
    roster.learn(Selector.of({"gpu": "yes"}))
    for number in range(3):
        session(roster, f"plain{number}")
    session(roster, "gpu", gpu="yes")
    assert [name for name, _ in names(roster, limit=2)] == ["plain0", "plain1"]
    assert names(roster, limit=2)[0] == ("gpu", True)


def test_a_class_goes_with_its_last_agent():
    roster = Roster()
    roster.learn(Selector.of({"hostname": "h"}))
    one, two = (session(roster, name, hostname=name) for name in ("one", "two"))
    roster.learn(Selector.of({"gpu": "yes"}))
    assert len(roster) == 2
    roster.remove(one)
    assert len(roster) == 1
    assert names(roster) == [("two", False)]
    roster.remove(two)
    assert len(roster) == 0


def test_new_labels_count_at_once():
    roster = Roster()
    roster.learn(Selector.of({"gpu": "yes"}))
    one = session(roster, "one")
    one.labels = {"gpu": "yes"}
    roster.place(one)
    assert names(roster) == [("one", True)]
