"""The Iceberg catalog in a SQLite file: which metadata document is a table's present one.

The schema is that of Iceberg's JDBC and SQL catalogs, so that any engine opens it. The swap of a
table's document is the one place where commits of many processes meet.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from k2.errors import NotFound, Unavailable

NAME: Final = "k2"
NAMESPACE: Final = "market"
BUSY: Final = timedelta(seconds=30)

_TABLES: Final = (
    """
    CREATE TABLE IF NOT EXISTS iceberg_tables (
        catalog_name VARCHAR(255) NOT NULL,
        table_namespace VARCHAR(255) NOT NULL,
        table_name VARCHAR(255) NOT NULL,
        metadata_location VARCHAR(1000),
        previous_metadata_location VARCHAR(1000),
        iceberg_type VARCHAR(5),
        PRIMARY KEY (catalog_name, table_namespace, table_name))
    """,
    """
    CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
        catalog_name VARCHAR(255) NOT NULL,
        namespace VARCHAR(255) NOT NULL,
        property_key VARCHAR(255) NOT NULL,
        property_value VARCHAR(1000) NOT NULL,
        PRIMARY KEY (catalog_name, namespace, property_key))
    """,
    f"INSERT OR IGNORE INTO iceberg_namespace_properties VALUES "
    f"('{NAME}', '{NAMESPACE}', 'exists', 'true')",
)
_WHERE: Final = f"catalog_name = '{NAME}' AND table_namespace = '{NAMESPACE}' AND table_name = ?"
_LOCATION: Final = f"SELECT metadata_location FROM iceberg_tables WHERE {_WHERE}"
_NAMES: Final = (
    f"SELECT table_name FROM iceberg_tables WHERE catalog_name = '{NAME}' "
    f"AND table_namespace = '{NAMESPACE}' ORDER BY table_name"
)
_CREATE: Final = (
    "INSERT OR IGNORE INTO iceberg_tables (catalog_name, table_namespace, table_name, "
    f"metadata_location, iceberg_type) VALUES ('{NAME}', '{NAMESPACE}', ?, ?, 'TABLE')"
)
_SWAP: Final = (
    "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ? "
    f"WHERE {_WHERE} AND metadata_location = ?"
)


class Catalog:
    """The catalog's file, open. Any thread may call; many processes may have it open at once.

    Every method raises `Unavailable` when the file is locked for too long or cannot be written.
    """

    def __init__(self, path: Path, *, read_only: bool, busy: timedelta = BUSY) -> None:
        if read_only and not path.exists():
            raise NotFound(
                "there are no tables yet", place=str(path), hint="load something first: k2 load"
            )
        self._path = path
        self.read_only = read_only
        # Reading must not wait for a commit's disk: it has a connection of its own.
        self._reading, self._writing = threading.Lock(), threading.RLock()
        with _translated(path):
            self._reader = _connect(path, busy)
            self._writer = self._reader if read_only else _connect(path, busy)
            if read_only:
                self._reader.execute("PRAGMA query_only=1")
            else:
                self._prepare()

    def _prepare(self) -> None:
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=FULL")
        with self.exclusive():
            for statement in _TABLES:
                self._writer.execute(statement)

    def location(self, table: str) -> str | None:
        """URI of the table's present metadata document; None if there is no such table."""
        with self._reading, _translated(self._path):
            found = self._reader.execute(_LOCATION, (table,)).fetchone()
        return None if found is None else str(found[0])

    def names(self) -> list[str]:
        """Names of all tables, sorted."""
        with self._reading, _translated(self._path):
            return [name for (name,) in self._reader.execute(_NAMES).fetchall()]

    def create(self, table: str, location: str) -> bool:
        """Add the table; False if somebody else was first."""
        with self.exclusive():
            return self._writer.execute(_CREATE, (table, location)).rowcount == 1

    def swap(self, table: str, old: str, new: str, ready: Callable[[], bool]) -> bool:
        """Make `new` the table's document if `old` still is; False if it is not.

        `ready` is asked under the lock: on False nothing is swapped. Whatever else than an answer
        comes out (also `Unavailable`), the outcome is unknown.
        """
        with self.exclusive():
            if not ready():
                return False
            return self._writer.execute(_SWAP, (new, old, table, old)).rowcount == 1

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other process from swapping meanwhile: for moments only."""
        with self._writing, _translated(self._path):
            if self._writer.in_transaction:
                yield
                return
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
        self._writer.close()


def _connect(path: Path, busy: timedelta) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=busy.total_seconds(), isolation_level=None, check_same_thread=False
    )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        hint = {
            "SQLITE_FULL": "make room on the disk; nothing is lost",
            "SQLITE_BUSY": "another process holds the catalog; try again",
        }.get(name.removesuffix("_SNAPSHOT"))
        raise Unavailable(
            f"the catalog cannot be used: {error}", place=str(path), hint=hint, retry_after=1.0
        ) from error
