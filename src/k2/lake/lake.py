"""The lake: all tables of one folder."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pyarrow as pa

from k2.errors import NotFound
from k2.lake import expire, ledgers
from k2.lake.catalog import BUSY, Catalog
from k2.lake.files import unwritable
from k2.lake.index import DataFileRef
from k2.lake.table import LakeTable
from k2.lake.tables import Definition, definition


def open_lake(
    folder: Path,
    *,
    read_only: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    unique: Callable[[], UUID] = uuid4,
    keep_snapshots: int = expire.KEEP_SNAPSHOTS,
    busy: timedelta = BUSY,
) -> "Lake":
    """Open the lake in `folder`: the catalog is `catalog.db`, tables are below `tables/`.

    Made if missing, unless `read_only`: then `NotFound` says so, tables are taken as they are and
    nothing is ever written. `keep_snapshots`: for the time travel of other engines; K2's own does
    not need them. `busy`: how long to wait for another process that holds the catalog. Raises
    `Unavailable` when the folder cannot be used.
    """
    folder = folder.absolute()
    if not read_only:
        try:
            (folder / "tables").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
    catalog = Catalog(folder / "catalog.db", read_only=read_only, busy=busy)
    return Lake(folder, catalog, clock, unique, keep_snapshots)


class Lake:
    """Every table of one folder. Any thread may call; many processes may have it open at once."""

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        clock: Callable[[], datetime],
        unique: Callable[[], UUID],
        keep_snapshots: int,
    ) -> None:
        self.folder = folder
        self.read_only = catalog.read_only
        self._catalog = catalog
        self._clock = clock
        self._unique = unique
        self._keep_snapshots = keep_snapshots
        self._tables: dict[str, LakeTable] = {}
        self._lock = threading.Lock()

    def table(self, name: str, wanted: Definition | None = None) -> LakeTable:
        """The table, made if missing and given the columns that it lacks (see `wanted`, by
        default the model's).

        Raises `NotFound` for a name that is none of K2's tables, or when a read-only lake does
        not have it yet.
        """
        found = self._tables.get(name)
        if found is not None:
            return found
        wanted = wanted or definition(name)
        with self._lock:
            if name not in self._tables:
                self._tables[name] = self._open(name, wanted)
            return self._tables[name]

    def _open(self, name: str, wanted: Definition) -> LakeTable:
        table = LakeTable(
            self._catalog,
            wanted,
            clock=self._clock,
            unique=self._unique,
            absorbed=lambda ledger: self._absorbed(ledger, name),
            keep_snapshots=self._keep_snapshots,
        )
        if not self.read_only:
            try:
                table.ensure(self.folder / "tables")
            except OSError as error:
                raise unwritable(self.folder, error) from error
        elif not self.has(name):
            raise NotFound(
                f"there is no table {name} yet",
                place=str(self.folder),
                hint="it is made when the first record is committed",
            )
        return table

    def _absorbed(self, ledger: str, table: str) -> int:
        if not self.has(ledger):
            return 0
        return self.table(ledger).snapshot().absorbed.get(table, 0)

    def has(self, name: str) -> bool:
        """Is there such a table already?"""
        return self._catalog.location(name) is not None

    def tables(self) -> list[str]:
        """Names of the tables that there are, sorted."""
        return self._catalog.names()

    def absorb(self, name: str) -> int:
        """Take the table's outbox and commits into the ledgers: see `k2.lake.ledgers.absorb`."""
        return ledgers.absorb(self, name)

    def ledger_files(self, name: str) -> tuple[DataFileRef, ...]:
        """Every file of a ledger, its outboxes included: what a reader of it needs."""
        return ledgers.ledger_files(self, name)

    def commits_of(self, name: str) -> pa.Table:
        """Every commit of the table, oldest first: see `k2.lake.ledgers.commits_of`."""
        return ledgers.commits_of(self, name)

    def resolve_as_of(self, name: str, when: datetime | int | str) -> int:
        """The number of the table's last commit by a time, of a snapshot id or of a tag.

        Raises `NotFound` (see `k2.lake.ledgers.resolve_as_of`).
        """
        return ledgers.resolve_as_of(self, name, when)

    def tag(self, name: str, called: str, commit: int | None = None) -> int:
        """Name a state of the table for good; its commit: see `k2.lake.ledgers.tag`."""
        return ledgers.tag(self, name, called, commit)

    def clean(self, name: str, older_than: timedelta = expire.CLEAN_AFTER) -> int:
        """Delete metadata files that nothing names any more: see `k2.lake.expire.clean`."""
        return expire.clean(self.table(name), older_than)

    def close(self) -> None:
        """Let go of the catalog. Nothing else may be called afterwards."""
        self._catalog.close()
