"""Reads whole mapped files, as the tests of this room need them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from k2.feeds import EndOfFeed, Feed
from k2.feeds.csv import open_file
from k2.feeds.mapping import FileMapping, parse_mapping
from k2.model import latest

NOON = datetime(2026, 12, 2, 12, tzinfo=UTC)


def read_all(feed: Feed) -> Mapping[str, pa.Table]:
    """All records of a feed by kind, and close it."""
    found: dict[str, list[pa.Table]] = {}
    try:
        while True:
            for records in feed.read():
                found.setdefault(records.kind, []).append(records.table)
    except EndOfFeed:
        pass
    finally:
        feed.close()
    return {kind: pa.concat_tables(tables) for kind, tables in found.items()}


def read_file(path: Path, mapping: str | FileMapping, kind: str, **more: Any) -> "Whole":
    """All records of a file, and its rejects."""
    found = read_all(open_file(path, mapping, kind, clock=lambda: NOON, **more))
    return Whole(
        found.get(kind, latest(kind).arrow.empty_table()),
        found.get("rejects", latest("rejects").arrow.empty_table()),
    )


def undictionaried(table: pa.Table) -> pa.Table:
    """The same values without dictionaries, which tell nothing of what a table holds."""
    columns = [
        column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.schema.names).combine_chunks()


class Whole:
    """The records of a file, and its rejects."""

    def __init__(self, records: pa.Table, rejects: pa.Table) -> None:
        self.records = undictionaried(records)
        self.rejects = rejects

    def distinct(self, name: str) -> set[Any]:
        """The different values of one column of the records."""
        return set(self.records.column(name).unique().to_pylist())

    def column(self, name: str) -> list[Any]:
        """The values of one column of the records."""
        found: list[Any] = self.records.column(name).to_pylist()
        return found

    def refused(self) -> list[tuple[int, str | None, str]]:
        """Line, column and reason of each reject."""
        names = ("line", "column", "reason")
        columns = (self.rejects.column(name).to_pylist() for name in names)
        return list(zip(*columns, strict=True))


PLAIN = """
name = "plain"
[exchange]
name = "X"
asset_class = "equities"
zone = "UTC"
[trades]
header = false
columns = ["time", "price", "quantity"]
[trades.fields]
symbol = { value = "ABC" }
timestamp = { column = "time", format = "%Y-%m-%d %H:%M:%S.%f" }
price = "price"
quantity = "quantity"
"""


def plain(*changes: tuple[str, str]) -> FileMapping:
    """The mapping `PLAIN`, with some of its text changed."""
    text = PLAIN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_mapping(text, "plain.toml")
