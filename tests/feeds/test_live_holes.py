"""Which ids were had: the ranges against a plain set of numbers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.live.holes import Hole, Ids
from k2.feeds.live.position import Had, Position, from_json

numbers = st.integers(1, 30)
steps = st.lists(
    st.tuples(st.just("add"), numbers, numbers)
    | st.tuples(st.just("expect"), numbers, numbers)
    | st.tuples(st.just("give up"), numbers, numbers),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(start=numbers, steps=steps)
def test_ranges_are_the_set(start: int, steps: list[tuple[str, int, int]]) -> None:
    ids = Ids()
    assert ids.add(start)
    had, gone, top = {start}, set[int](), start
    for what, one, other in steps:
        low, high = sorted((one, other))
        if what == "add":
            # Before the first there is nothing to be had.
            assert ids.add(one) == (one > start and one not in had)
            if one >= start:
                had.add(one)
                gone.discard(one)
                top = max(top, one)
        elif what == "expect":
            ids.expect(one)
            top = max(top, one)
        else:
            missing = set(range(start, top + 1)) - had - gone
            given_up = {n for hole in ids.give_up(low, high) for n in _numbers(hole)}
            assert given_up == {n for n in missing if low <= n <= high}
            gone |= given_up
        missing = set(range(start, top + 1)) - had - gone
        assert {n for hole in ids.holes() for n in _numbers(hole)} == missing
        assert ids.whole == (not missing)
        assert ids.last is not None
        assert ids.last == (min(missing) - 1 if missing else max(had | gone))
        again = from_json(Position({"X": Had(ids.last, 0, ids.beyond)}).to_json()).trades["X"]
        assert again.beyond == ids.beyond
        assert Ids(again.last, again.beyond).highest == ids.highest


def _numbers(hole: Hole) -> range:
    assert hole.first <= hole.last
    return range(hole.first, hole.last + 1)
