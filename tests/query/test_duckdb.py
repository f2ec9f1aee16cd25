from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from k2.errors import BadInput, Broken, K2Error, Refused, Unavailable
from k2.query.duckdb import DuckDB, translated
from k2.query.port import Source, Statement
from tests.query.make import COLUMNS


def errors(of: type[duckdb.Error]) -> Iterator[type[duckdb.Error]]:
    """Every exception of the library, found by walking it."""
    yield of
    for kind in of.__subclasses__():
        yield from errors(kind)


@pytest.mark.parametrize("kind", sorted(set(errors(duckdb.Error)), key=str))
@pytest.mark.parametrize("of_user", [True, False])
def test_no_exception_of_the_library_is_forgotten(kind: type[duckdb.Error], of_user: bool) -> None:
    with pytest.raises(K2Error) as caught, translated(of_user=of_user):
        raise kind("what happened\nand more")
    assert "and more" not in caught.value.message
    expected: dict[type[duckdb.Error], type[K2Error]] = {
        duckdb.InterruptException: Refused,
        duckdb.OutOfMemoryException: Refused,
        duckdb.PermissionException: Refused,
        duckdb.IOException: Unavailable,
        duckdb.HTTPException: Unavailable,
        duckdb.InternalException: Broken,
        duckdb.FatalException: Broken,
        duckdb.OutOfRangeException: BadInput,
        duckdb.ConversionException: BadInput,
    }
    assert type(caught.value) is expected.get(kind, BadInput if of_user else Broken)


def test_a_missing_file_is_unavailable(engine: DuckDB, tmp_path: Path) -> None:
    source = Source(columns=COLUMNS, files=(str(tmp_path / "gone.parquet"),))
    with pytest.raises(Unavailable, match=r"gone\.parquet"):
        engine.run(Statement("select * from {rows}"), {"rows": source})


def test_a_file_that_is_no_parquet_is_told(engine: DuckDB, tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"not a file")
    source = Source(columns=COLUMNS, files=(str(path),))
    with pytest.raises(K2Error, match=r"broken\.parquet"):
        engine.run(Statement("select * from {rows}"), {"rows": source})


def test_nothing_runs_after_closing() -> None:
    engine = DuckDB()
    assert engine.run(Statement("select 1 as a"), {}).num_rows == 1
    engine.close()
    with pytest.raises(Unavailable, match="closed"):
        engine.run(Statement("select 1 as a"), {})
