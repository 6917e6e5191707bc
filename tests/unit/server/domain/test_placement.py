from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.domain.placement import Offer, place
from tests.records import task

CLASSES = st.sampled_from("abc")
OFFERS = st.lists(
    st.tuples(st.integers(0, 4), st.frozensets(CLASSES), st.integers(0, 3)), max_size=5
).map(
    lambda rows: [
        Offer(n, f"agent-{n}", f"session-{n}", slots, classes, 1, assigned_at=at)
        for n, (slots, classes, at) in enumerate(rows)
    ]
)
TASKS = st.lists(CLASSES, max_size=12).map(
    lambda classes: [task(n, class_key=c) for n, c in enumerate(classes)]
)
BARRED = st.dictionaries(st.integers(0, 11), st.frozensets(st.integers(0, 4)))


def may_take(offer, row, barred):
    return row.class_key in offer.class_keys and offer.agent_key not in barred.get(row.key, ())


@given(TASKS, OFFERS, BARRED)
def test_nobody_gets_more_than_it_offers(ready, offers, barred):
    given_out = Counter(offer.session_id for _, offer in place(ready, offers, barred))
    assert all(given_out[offer.session_id] <= offer.slots for offer in offers)


@given(TASKS, OFFERS, BARRED)
def test_nobody_gets_what_it_does_not_fit_or_is_barred_from(ready, offers, barred):
    assert all(may_take(offer, row, barred) for row, offer in place(ready, offers, barred))


@given(TASKS, OFFERS, BARRED)
def test_a_task_goes_out_once_and_in_the_order_given(ready, offers, barred):
    keys = [row.key for row, _ in place(ready, offers, barred)]
    assert keys == sorted(set(keys))


@given(TASKS, OFFERS, BARRED)
def test_a_task_is_left_only_when_everybody_who_may_take_it_is_full(ready, offers, barred):
    free = {offer.session_id: offer.slots for offer in offers}
    takers = {row.key: offer for row, offer in place(ready, offers, barred)}
    for row in ready:
        able = [o for o in offers if may_take(o, row, barred) and free[o.session_id] > 0]
        assert bool(able) is (row.key in takers)
        if able:
            best = max((free[o.session_id], -o.assigned_at) for o in able)
            chosen = takers[row.key]
            assert (free[chosen.session_id], -chosen.assigned_at) == best
            free[chosen.session_id] -= 1


def test_most_free_slots_come_first_then_the_longest_idle():
    offers = [
        Offer(1, "full", "full", 1, frozenset("a"), 1, assigned_at=0),
        Offer(2, "fresh", "fresh", 2, frozenset("a"), 1, assigned_at=9),
        Offer(3, "idle", "idle", 2, frozenset("a"), 1, assigned_at=3),
    ]
    ready = [task(n, class_key="a") for n in range(6)]
    went = [offer.agent_id for _, offer in place(ready, offers, {})]
    assert went == ["idle", "fresh", "full", "idle", "fresh"]
