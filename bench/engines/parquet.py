"""Plain DuckDB over Parquet files, one a day, sorted by symbol and time, as one would keep them
without any lakehouse.
"""

from pathlib import Path
from typing import Final

from bench.engines.native import Relations, connect
from bench.home import data_files
from bench.market import DAYS

TITLE: Final = "sorted Parquet"
NEEDS: Final = "duckdb"
NOTE: Final = ""


def open_engine(home: Path) -> Relations:
    """The files, made by DuckDB itself, and a view of each kind."""
    database = connect()
    for kind in ("trades", "quotes"):
        folder = home / "sorted" / kind
        folder.mkdir(parents=True)
        for day in DAYS:
            paths = ", ".join(f"'{path}'" for path in data_files(home, kind, day))
            database.execute(
                f"COPY (SELECT * FROM read_parquet([{paths}]) ORDER BY symbol, timestamp) "
                f"TO '{folder}/{day}.parquet' (FORMAT parquet, COMPRESSION zstd)"
            )
        database.execute(f"CREATE VIEW {kind} AS SELECT * FROM read_parquet('{folder}/*.parquet')")
    return Relations(database)
