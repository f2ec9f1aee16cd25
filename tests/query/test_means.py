"""Weighted means: exact, halves to even, whatever the sign; what does not count leaves no trace."""

from decimal import Context, Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.query.duckdb import DuckDB
from k2.query.means import to_decimals, weighted_means
from tests.query.reference import quotient

VALUE, WEIGHT = pa.decimal128(20, 8), pa.decimal128(18, 8)
UNIT = Decimal("1e-8")


def means(
    engine: DuckDB,
    rows: list[tuple[int, Decimal | None, Decimal]],
    groups: int,
    divisor: int = 1,
) -> list[tuple[int, Decimal | None, Decimal | None]]:
    numbers, values, weights = zip(*rows, strict=True) if rows else ((), (), ())
    found = weighted_means(
        engine,
        np.array(numbers, np.int64),
        pa.array(values, VALUE),
        pa.array(weights, WEIGHT),
        groups=groups,
        divisor=divisor,
    )
    columns = (found[name].to_pylist() for name in ("count", "weight", "mean"))
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(
    ("halves", "rounded"),
    [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2), (-7, -4), (2, 1), (-2, -1)],
)
def test_halves_go_to_the_even(engine: DuckDB, halves: int, rounded: int) -> None:
    one = Decimal(1)
    value = halves * UNIT
    assert means(engine, [(0, value, one)], 1, divisor=2)[0][2] == rounded * UNIT
    # The same by weights: half of it is zero.
    assert means(engine, [(0, value, one), (0, Decimal(0), one)], 1)[0][2] == rounded * UNIT


def test_what_does_not_count(engine: DuckDB) -> None:
    rows = [(2, Decimal(4), Decimal(3)), (2, None, Decimal(9)), (0, Decimal(5), Decimal(0))]
    assert means(engine, rows, 4) == [
        (0, None, None),
        (0, None, None),
        (1, Decimal(3), Decimal(4)),
        (0, None, None),
    ]
    assert means(engine, [], 2) == [(0, None, None)] * 2
    assert means(engine, [], 0) == []


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.decimals(-9_999_999_999, 9_999_999_999, places=8, allow_nan=False),
            st.decimals("0.00000001", 10**9, places=8, allow_nan=False),
        ),
        min_size=1,
        max_size=20,
    ),
    divisor=st.sampled_from([1, 2]),
)
def test_means_equal_those_of_a_plain_reference(
    engine: DuckDB, rows: list[tuple[int, Decimal, Decimal]], divisor: int
) -> None:
    found = means(engine, list(rows), 3, divisor)
    for number in range(3):
        mine = [(value, weight) for group, value, weight in rows if group == number]
        if mine:
            weight = sum((of for _, of in mine), Decimal(0))
            total = sum(int(value / UNIT) * int(of / UNIT) for value, of in mine)
            parts = divisor * int(weight / UNIT)
            expected = quotient(Decimal(total).scaleb(-8, Context(prec=200)), Decimal(parts))
            assert found[number] == (len(mine), weight, expected)


def test_numbers_of_a_unit_are_decimals() -> None:
    unscaled = np.array([0, 1, -1, 10**17, -(10**17)])
    assert to_decimals(unscaled).to_pylist() == [int(n) * UNIT for n in unscaled]
