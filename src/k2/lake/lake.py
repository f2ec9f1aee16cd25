"""The lake: all tables of one folder."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from k2.errors import NotFound
from k2.lake.catalog import Catalog
from k2.lake.files import unwritable
from k2.lake.table import LakeTable
from k2.lake.tables import Definition, definition


def open_lake(
    folder: Path,
    *,
    read_only: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    unique: Callable[[], UUID] = uuid4,
) -> "Lake":
    """Open the lake in `folder`: the catalog is `catalog.db`, tables are below `tables/`.

    Made if missing, unless `read_only`: then `NotFound` says so, tables are taken as they are and
    nothing is ever written. Raises `Unavailable` when the folder cannot be used.
    """
    folder = folder.absolute()
    if not read_only:
        try:
            (folder / "tables").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
    return Lake(
        folder, Catalog(folder / "catalog.db", read_only=read_only), read_only, clock, unique
    )


class Lake:
    """Every table of one folder. Any thread may call; many processes may have it open at once."""

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        read_only: bool,
        clock: Callable[[], datetime],
        unique: Callable[[], UUID],
    ) -> None:
        self.folder = folder
        self.read_only = read_only
        self._catalog = catalog
        self._clock = clock
        self._unique = unique
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
        return name in self._tables or self._catalog.location(name) is not None

    def tables(self) -> list[str]:
        """Names of the tables that there are, sorted."""
        return self._catalog.names()

    def close(self) -> None:
        """Let go of the catalog. Nothing else may be called afterwards."""
        self._catalog.close()
