"""The order of rows inside files."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.lake import sort_indices, sort_rows
from tests.lake.make import trades

COLUMNS = ("symbol", "timestamp", "timestamp_nanos", "log_partition", "log_offset")
ORDER = [(name, "ascending") for name in COLUMNS]

records = st.lists(
    st.tuples(
        st.sampled_from(["B", "A", "é", "Z", ""]),
        st.integers(0, 3),
        st.integers(0, 1),
        st.integers(0, 1),
    ),
    max_size=30,
)


@given(records=records, in_time_order=st.booleans())
def test_rows_are_sorted_by_symbol_time_and_place(
    records: list[tuple[str, int, int, int]], in_time_order: bool
) -> None:
    if in_time_order:
        records = sorted(records, key=lambda r: r[1:])
    rows = [(*record, offset) for offset, record in enumerate(records)]
    table = pa.table(
        {
            "symbol": pa.array([r[0] for r in rows], pa.string()).dictionary_encode(),
            "timestamp": pa.array([r[1] for r in rows], pa.timestamp("us", tz="UTC")),
            "timestamp_nanos": pa.array([r[2] for r in rows], pa.int32()),
            "log_partition": pa.array([r[3] for r in rows], pa.int32()),
            "log_offset": pa.array([r[4] for r in rows], pa.int64()),
        }
    )
    expected = sorted(range(len(rows)), key=lambda i: (rows[i][0].encode(), *rows[i][1:]))

    assert sort_indices(table).tolist() == expected


def test_a_dictionary_that_names_a_symbol_twice_is_one_symbol() -> None:
    table = trades(6, symbols=1)
    codes = pa.array([0, 1, 0, 2, 1, 0], pa.int32())
    names = pa.DictionaryArray.from_arrays(codes, pa.array(["A", "B", "A"]))
    table = table.set_column(0, "symbol", names)

    assert sort_rows(table)["symbol"].to_pylist() == ["A"] * 4 + ["B"] * 2


@pytest.mark.parametrize("shuffled", [False, True])
def test_all_columns_move_together(shuffled: bool) -> None:
    table = trades(5000)
    arrival = np.argsort(table["log_offset"].to_numpy(), kind="stable")
    if shuffled:
        arrival = np.random.default_rng(1).permutation(arrival)
    chunked = pa.concat_tables([table.take(pa.array(part)) for part in np.split(arrival, 5)])

    assert sort_rows(chunked.unify_dictionaries()).equals(table)
