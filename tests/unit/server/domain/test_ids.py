from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from server.domain.ids import derived_id

PARENTS = st.integers(0, 2**128 - 1).map(
    # version 7, variant 10: RFC 9562, section 5.7
    lambda n: str(UUID(int=n & ~(0xF << 76) & ~(0b11 << 62) | 7 << 76 | 0b10 << 62))
)


@given(PARENTS, st.lists(st.integers(0, 10_000), unique=True, max_size=50))
def test_children_differ_from_each_other_and_from_their_parent(parent, places):
    ids = {derived_id(parent, place) for place in places}
    assert len(ids) == len(places)
    assert parent not in ids


@given(PARENTS, st.integers(0, 10_000))
def test_a_child_is_a_uuid_of_version_7_and_of_its_parents_moment(parent, place):
    child = UUID(derived_id(parent, place))
    assert child.version == 7
    assert child.int >> 80 == UUID(parent).int >> 80
    assert child == UUID(derived_id(parent, place))
