"""What compaction does to a table: its files become others, each row with its commit."""

from collections import defaultdict
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.lake import Bucket, DataFileRef, LakeTable, bucket, sort_rows


def rows_of(table: LakeTable, file: DataFileRef) -> pa.Table:
    """The file's rows as the table has them, each with the commit that brought it."""
    rows = pq.ParquetFile(file.path).read()
    commits = pc.coalesce(rows["commit_sequence"], pa.scalar(file.sequence, pa.int64()))
    at = rows.schema.get_field_index("commit_sequence")
    rows = rows.set_column(at, "commit_sequence", commits)
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in table.definition.arrow
    ]
    return pa.table(columns, schema=pa.schema(list(table.definition.arrow)))


def compact(table: LakeTable, *, buckets: bool = True) -> int:
    """Rewrite every day into one file, or one a bucket; how many files there are now."""
    days: dict[date, list[DataFileRef]] = defaultdict(list)
    for file in table.snapshot().files.select():
        assert file.exchange_date is not None
        days[file.exchange_date].append(file)
    for day, files in days.items():
        rows = sort_rows(pa.concat_tables([rows_of(table, file) for file in files]))
        if not buckets:
            table.replace([f.path for f in files], [table.write(rows, day)])
            continue
        of = np.array([bucket(symbol, table.buckets) for symbol in rows["symbol"].to_pylist()])
        written = [
            table.write(
                rows.filter(pa.array(of == number)), day, bucket=Bucket(int(number), table.buckets)
            )
            for number in np.unique(of)
        ]
        table.replace([f.path for f in files], written)
    return len(table.snapshot().files)
