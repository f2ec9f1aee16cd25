"""Numbers that count up: what each record is to its stream, whatever the order they come in."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.ingest.sequence import (
    MOST_HOLES,
    Hole,
    Mark,
    Numbered,
    State,
    Stream,
    Tracked,
    bounded,
    track,
)

HOUR = timedelta(hours=1) // timedelta(microseconds=1)
BTC: Stream = ("binance", "BTCUSDT", "")
ETH: Stream = ("binance", "ETHUSDT", "")


def rows(
    numbers: Sequence[int], *, of: Sequence[Stream] | None = None, times: Sequence[int] = ()
) -> Numbered:
    """Rows in log order: each with its place for an offset, its number for a time."""
    streams = sorted(set(of or [BTC]))
    place = np.arange(len(numbers), dtype=np.int64)
    return Numbered(
        streams,
        np.array([streams.index(each) for each in of or [BTC] * len(numbers)], np.int32),
        np.array(numbers, np.int64),
        np.array(times or numbers, np.int64),
        place,
        np.zeros(len(numbers), np.int64),
        place,
    )


def after(*commits: Numbered) -> tuple[dict[Stream, State], list[Tracked]]:
    states: dict[Stream, State] = {}
    found = []
    for each in commits:
        found.append(track(states, each))
        states.update(found[-1].changed)
    return states, found


def holes(state: State) -> list[tuple[int, int]]:
    return [(hole.first, hole.last) for hole in state.holes]


def counts(found: Tracked) -> dict[str, int]:
    return {status: n for status, n in found.counts.items() if n}


def test_numbers_in_order() -> None:
    states, (first, second) = after(rows([7, 8, 9]), rows([10, 11]))
    assert (states[BTC].base, states[BTC].top.number, states[BTC].holes) == (7, 11, ())
    assert (counts(first), counts(second)) == ({"ok": 3}, {"ok": 2})
    assert not second.opened


def test_a_gap_opens_shrinks_and_closes() -> None:
    states, found = after(rows([1, 2]), rows([6, 7]), rows([4]), rows([3, 5]))
    assert [counts(each) for each in found] == [
        {"ok": 2},
        {"gap": 1, "ok": 1},
        {"late": 1},
        {"late": 2},
    ]
    assert [(of, each.first, each.last) for of, each in found[1].opened.values()] == [(BTC, 3, 5)]
    assert holes(found[1].changed[BTC]) == [(3, 5)]
    assert holes(found[2].changed[BTC]) == [(3, 3), (5, 5)]
    assert not found[2].opened
    assert states[BTC].holes == ()


def test_a_hole_is_told_by_the_records_beside_it() -> None:
    _, (_, found) = after(rows([1, 2]), rows([6, 4]))
    first, second = found.changed[BTC].holes
    assert first == Hole(Mark(2, 2, 1, 0, 1), Mark(4, 4, 1, 0, 1))
    assert second == Hole(Mark(4, 4, 1, 0, 1), Mark(6, 6, 0, 0, 0))
    assert {each.first for _, each in found.opened.values()} == {3, 5}


def test_what_is_only_out_of_order_within_a_commit_is_no_gap() -> None:
    states, (found,) = after(rows([3, 1, 5, 2, 4]))
    assert (states[BTC].base, holes(states[BTC])) == (1, [])
    assert counts(found) == {"ok": 5}


def test_streams_do_not_mix() -> None:
    states, (found,) = after(rows([1, 5, 2, 7], of=[BTC, ETH, BTC, ETH]))
    assert holes(states[BTC]) == []
    assert holes(states[ETH]) == [(6, 6)]
    assert counts(found) == {"ok": 3, "gap": 1}


def test_a_past_that_is_brought_in_is_no_gap() -> None:
    states, found = after(rows([100, 101]), rows([50, 51]), rows([98, 99]), rows([102]))
    assert [counts(each) for each in found] == [{"ok": 2}, {"ok": 2}, {"ok": 2}, {"ok": 1}]
    assert (states[BTC].base, states[BTC].top.number, holes(states[BTC])) == (98, 102, [])


def test_a_venue_that_begins_anew() -> None:
    states, (_, found) = after(
        rows([500, 501], times=[0, 1]),
        rows([502, 3, 1, 2, 5], times=[2, *[2 * HOUR] * 4]),
    )
    assert counts(found) == {"ok": 3, "reset": 1, "gap": 1}
    assert (states[BTC].base, states[BTC].top.number, holes(states[BTC])) == (1, 5, [(4, 4)])


@pytest.mark.parametrize("later", [0, HOUR])
def test_a_low_number_within_the_hour_is_no_new_count(later: int) -> None:
    states, (_, found) = after(rows([500], times=[0]), rows([3], times=[later]))
    assert counts(found) == {"ok": 1}
    assert states[BTC].top.number == 500


def test_holes_in_memory_are_bounded_and_none_is_let_go_untold() -> None:
    many = range(1, 2 * (MOST_HOLES + 12), 2)
    state = after(rows(list(many)))[0][BTC]
    assert len(bounded(state).holes) == MOST_HOLES + 11
    told = tuple(hole._replace(told=n % 2 == 0) for n, hole in enumerate(state.holes))
    kept = bounded(state._replace(holes=told)).holes
    assert len(kept) == MOST_HOLES
    assert kept == tuple(h for n, h in enumerate(told) if n % 2 or n > 20)


@given(
    st.lists(st.integers(1, 60), min_size=1, unique=True),
    st.lists(st.integers(1, 60), max_size=3),
)
def test_holes_are_the_numbers_that_are_missing(numbers: list[int], cuts: list[int]) -> None:
    """Whatever the order and the commits, between the first commit's least and the greatest."""
    ends = sorted({*(cut for cut in cuts if cut < len(numbers)), len(numbers)})
    commits = [numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    states, found = after(*map(rows, commits))
    state = states[BTC]
    missing = {n for first, last in holes(state) for n in range(first, last + 1)}
    least = min(commits[0])
    assert state.top.number == max(numbers)
    assert missing == set(range(least, max(numbers) + 1)) - set(numbers)
    assert sum(sum(each.counts.values()) for each in found) == len(numbers)
    for hole in state.holes:
        assert {hole.before.number, hole.after.number} <= set(numbers)
        assert not hole.told
