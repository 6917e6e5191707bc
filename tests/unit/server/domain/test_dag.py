from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.domain.dag import find_cycle

GRAPHS = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3), max_size=6
)


def reaches(needs, start, goal):
    seen, todo = set(), list(needs.get(start, ()))
    while todo:
        node = todo.pop()
        if node == goal:
            return True
        if node not in seen:
            seen.add(node)
            todo += needs.get(node, ())
    return False


@given(GRAPHS)
def test_a_cycle_is_found_exactly_when_something_waits_for_itself(needs):
    cycle = find_cycle(needs)
    assert (cycle is not None) is any(reaches(needs, node, node) for node in needs)


@given(GRAPHS)
def test_a_cycle_is_a_round_along_the_edges(needs):
    cycle = find_cycle(needs)
    if cycle is not None:
        assert cycle[0] == cycle[-1]
        pairs = list(pairwise(cycle))
        forward = all(other in needs[one] for one, other in pairs)
        backward = all(one in needs[other] for one, other in pairs)
        assert forward or backward


def test_there_is_no_cycle_in_nothing():
    assert find_cycle({}) is None
