"""Which record stood, found by looking at each: with ties, pairs, and much that is late."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.query import asof
from k2.query.asof import NONE, Keys, Rule, match


def keys(seed: int, count: int, pairs: int, times: int, *, wide: int = 1) -> Keys:
    r = np.random.default_rng(seed)
    time = r.integers(0, max(1, times), count) * wide
    # Half is known at once, half late, some before it happened.
    delay = np.where(r.random(count) < 0.5, 0, r.integers(-2, times + 1, count))
    place = r.permutation(count)
    return Keys(r.integers(0, pairs, count), time, time // wide + delay, place)


def look(left: Keys, right: Keys, rule: Rule) -> list[int]:
    """The index of the record that stood, each of the right looked at for each of the left."""
    found = []
    for pair, time, known in zip(left.pair, left.time, left.known, strict=True):
        best, at = None, NONE
        for n in range(len(right)):
            if right.pair[n] != pair or right.time[n] > time:
                continue
            if rule.strict and right.time[n] == time:
                continue
            if not rule.look_ahead and right.known[n] > known:
                continue
            order = (right.time[n], right.place[n])
            if best is None or order > best:
                best, at = order, n
        found.append(at)
    return found


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    lefts=st.integers(0, 40),
    rights=st.integers(0, 70),
    pairs=st.integers(1, 4),
    times=st.integers(1, 60),
    wide=st.sampled_from([1, 10**16]),
    strict=st.booleans(),
    look_ahead=st.booleans(),
)
def test_what_stood_is_found_by_looking_at_each(
    seed: int,
    lefts: int,
    rights: int,
    pairs: int,
    times: int,
    wide: int,
    strict: bool,
    look_ahead: bool,
) -> None:
    left = keys(seed, lefts, pairs, times, wide=wide)
    right = keys(seed + 1, rights, pairs, times, wide=wide)
    rule = Rule(strict, look_ahead)
    found, passed = match(left, right, rule)
    assert found.tolist() == look(left, right, rule)
    newest = look(left, right, Rule(strict, look_ahead=True))
    late = [n != NONE and right.known[n] > k for n, k in zip(newest, left.known, strict=True)]
    assert passed.tolist() == [not look_ahead and is_late for is_late in late]


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 1000])
def test_all_but_the_first_are_late(count: int) -> None:
    """The longest way back that there is."""
    zeros = np.zeros(count, np.int64)
    known = np.arange(count)[::-1] + 10
    known[0] = 0
    right = Keys(zeros, np.arange(count), known, zeros)
    left = Keys(np.array([0]), np.array([count]), np.array([1]), np.array([0]))
    assert match(left, right, Rule())[0].tolist() == [0]
    assert match(left, right, Rule(look_ahead=True))[0].tolist() == [count - 1]


def test_many_pairs_over_a_long_time_go_by_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = keys(1, 200, 5, 30), keys(2, 300, 5, 30)
    expected = match(left, right, Rule())[0].tolist()
    monkeypatch.setattr(asof, "_ROOM", 10)
    assert match(left, right, Rule())[0].tolist() == expected
