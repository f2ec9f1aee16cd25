"""Levels: each way up and down, by a turned clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.ingest.degradation import Degradation, Level, Thresholds

N, S, G, A, C = Level
LAGS = {S: 100_000, G: 500_000, A: 1_000_000, C: 5_000_000}
MEMORY = {S: 0.70, G: 0.80, A: 0.90, C: 0.95}


def at(level: Level, now: float = 0.0) -> Degradation:
    """A writer that entered `level` at `now` by lag."""
    found = Degradation()
    if level is not N:
        found.observe(LAGS[level], 0.0, now)
    assert found.level is level
    return found


@pytest.mark.parametrize(
    ("before", "level"),
    [(before, level) for before in (N, S, G, A) for level in LAGS if level > before],
)
def test_up_at_once_by_lag_or_memory(before: Level, level: Level) -> None:
    for lag, memory in ((LAGS[level], 0.0), (0, MEMORY[level])):
        found = at(before)
        found.observe(lag - 1 if lag else 0, memory - 0.001 if memory else 0.0, 1)
        assert found.level < level
        change = found.observe(lag, memory, 1)
        assert change is not None
        assert (change.after, found.level) == (level, level)
        assert ("lag" if lag else "memory") in change.reason


@pytest.mark.parametrize(("level", "below"), [(S, 50_000), (G, 250_000), (A, 500_000)])
def test_down_one_level_after_thirty_seconds_of_calm(level: Level, below: int) -> None:
    found = at(level)
    memory = MEMORY[level] * 0.9 - 0.001
    assert found.observe(below - 1, memory, 1) is None
    assert found.observe(below - 1, memory, 30.9) is None
    change = found.observe(below - 1, memory, 31)
    assert change is not None
    assert (change.after, found.level) == (level - 1, level - 1)


@pytest.mark.parametrize("level", [S, G, A])
@pytest.mark.parametrize("lag_or_memory", ["lag", "memory"])
def test_half_of_the_trigger_is_not_below_it(level: Level, lag_or_memory: str) -> None:
    lag = LAGS[level] // 2 if lag_or_memory == "lag" else 0
    memory = MEMORY[level] * 0.9 if lag_or_memory == "memory" else 0.0
    found = at(level)
    for now in range(1, 200):
        assert found.observe(lag, memory, now) is None
    assert found.level is level


def test_each_level_takes_its_own_calm() -> None:
    found = at(A)
    seen = [(now, change.after) for now in range(1, 200) if (change := found.observe(0, 0.0, now))]
    assert seen == [(31, G), (62, S), (93, N)]


def test_a_dip_of_29_seconds_lowers_nothing() -> None:
    found = at(G)
    for start in range(0, 600, 30):
        for second in range(30):
            found.observe(0 if second < 29 else 300_000, 0.0, start + second)
            assert found.level is G


@given(st.lists(st.sampled_from([0, 49_999, 100_000]), max_size=200))
def test_flapping_input_does_not_flap_the_level(lags: list[int]) -> None:
    found, changes = Degradation(), 0
    for second, lag in enumerate(lags):
        changes += found.observe(lag, 0.0, second) is not None
    # Down takes a calm of thirty seconds each time.
    assert changes <= 1 + 2 * (len(lags) // 30)


def test_the_last_level_ends_by_itself_whatever_the_lag() -> None:
    found = at(C)
    for now in range(1, 30):
        assert found.observe(9_000_000, 0.0, now) is None or found.level is C
    change = found.observe(4_000_000, 0.0, 30)
    assert change is not None
    assert (change.before, change.after) == (C, A)


def test_still_too_far_behind_after_it_enters_it_again() -> None:
    found = at(C)
    assert found.observe(9_000_000, 0.0, 30) is not None
    assert found.level is A
    assert found.observe(9_000_000, 0.0, 31) is not None
    assert found.level is C


def test_what_is_resident_enters_the_last_level_only_and_once() -> None:
    found = Degradation()
    assert found.observe(0, 0.0, 0, 0.94) is None
    assert found.observe(0, 0.0, 1, 0.95) is not None
    assert found.level is C
    # The process never gives it back.
    changes = [found.observe(0, 0.0, now, 0.97) for now in range(2, 200)]
    assert [change.after for change in changes if change] == [A, G, S, N]
    assert found.observe(0, 0.0, 201, 0.85) is None
    assert found.observe(0, 0.0, 202, 0.95) is not None


@given(
    st.lists(st.tuples(st.integers(0, 6_000_000), st.floats(0, 1), st.integers(1, 20)), max_size=60)
)
def test_calm_always_ends_at_normal(seen: list[tuple[int, float, int]]) -> None:
    found, now = Degradation(), 0
    for lag, memory, seconds in seen:
        now += seconds
        before = found.level
        change = found.observe(lag, memory, now)
        assert change is None or change.before is before
        # Down is one at a time.
        assert found.level >= before - 1
    for _ in range(200):
        now += 1
        found.observe(0, 0.0, now)
    assert found.level is N


def test_thresholds_are_settings() -> None:
    found = Degradation(Thresholds(calm_seconds=1, lag_down=0.1))
    found.observe(100_000, 0.0, 0)
    found.observe(10_000, 0.0, 1)
    assert found.observe(10_000, 0.0, 2) is None
    found.observe(9_999, 0.0, 3)
    assert found.observe(9_999, 0.0, 4) is not None
