"""One table: its snapshot, writing files for it, committing them."""

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from k2.errors import BadInput, Broken, NotFound, Refused
from k2.lake import expire, metadata
from k2.lake.catalog import Catalog
from k2.lake.commit import Change, Commit, change_of, publish, replacing
from k2.lake.files import WrittenFile, describe, sync, unwritable, write_new, write_parquet
from k2.lake.index import local
from k2.lake.index_file import keep_index
from k2.lake.manifest import EPOCH, ManifestFormat
from k2.lake.metadata import FRESH_SPEC, Metadata, buckets_of, settled_spec
from k2.lake.offsets import RETIRED, retired_from_json
from k2.lake.snapshot import Head, Snapshot, load
from k2.lake.sort import Bucket
from k2.lake.tables import RECORD_TABLES, Definition


class LakeTable:
    """A table of the lake, open. Any thread may call; many processes may have it open at once.

    `absorbed(ledger)` tells up to which commit of this table a ledger has taken its outbox.
    """

    def __init__(
        self,
        catalog: Catalog,
        definition: Definition,
        *,
        clock: Callable[[], datetime],
        unique: Callable[[], UUID],
        absorbed: Callable[[str], int],
        keep_snapshots: int,
    ) -> None:
        self.catalog = catalog
        self.definition = definition
        self.name = definition.name
        self.unique = unique
        self._clock = clock
        self._absorbed = absorbed
        self._keep_snapshots = keep_snapshots
        self._lock = threading.Lock()
        self._head: Head | None = None
        self._formats: dict[tuple[int, int], ManifestFormat] = {}

    # ------------------------------------------------------------------ reading

    def snapshot(self) -> Snapshot:
        """The table as it is now. Cheap: one look at the catalog when nothing has changed, and
        else only what is new is read.
        """
        return self.head().snapshot

    def head(self) -> Head:
        """The present metadata document and what follows from it."""
        head = self._head
        if head is not None and head.location == self._location():
            return head
        with self._lock:
            return self._load(self._location())

    def _load(self, location: str) -> Head:
        while self._head is None or self._head.location != location:
            try:
                self._head = load(location, self.definition, self._head)
            except FileNotFoundError as error:
                # Documents and manifests are cleaned up some commits after they were replaced.
                if (now := self._location()) == location:
                    raise NotFound(
                        "a file that the table needs is not there",
                        place=str(error.filename),
                        hint="a lake cannot be moved: its files are named by their full path",
                    ) from error
                location = now
        return self._head

    def _location(self) -> str:
        location = self.catalog.location(self.name)
        if location is None:
            raise NotFound(f"there is no table {self.name} yet")
        return location

    # ------------------------------------------------------------------ writing

    def write(
        self, table: pa.Table, exchange_date: date | None, *, bucket: Bucket | None = None
    ) -> WrittenFile:
        """Write the rows, in their order, to a durable data file that a commit may name.

        `table` has the columns of `definition`; all rows are of that `exchange_date` (None for
        ledgers) and, for a settled file, of that `bucket`. Raises `Unavailable` when the disk is
        full, `Refused` when the table has columns that this version of K2 does not know.
        """
        self._writable()
        head = self.head()
        ids = head.snapshot.field_ids
        if unknown := [name for name in ids if name not in self.definition.names]:
            raise Refused(
                f"the table has a column that this version does not know: {unknown[0]}",
                place=self.name,
                hint="upgrade K2 before it writes to this table",
            )
        if (exchange_date is None) == self.definition.partitioned:
            raise BadInput("records have an exchange_date, ledgers have none", place=self.name)
        partition: dict[str, int] = {}
        if exchange_date is not None:
            partition["exchange_date"] = (exchange_date - EPOCH).days
        if bucket is not None:
            partition[settled_spec(head.metadata, bucket.of)[1]] = bucket.number
        path = self._data_folder(exchange_date, bucket) / f"{self.unique()}.parquet"
        footer = write_parquet(path, table, self.definition, ids)
        spec_id = settled_spec(head.metadata, bucket.of)[0] if bucket else FRESH_SPEC
        return self._written(path, footer, ids, partition, spec_id)

    def registered(self, path: str) -> WrittenFile:
        """A ledger's file that was written before, for a commit to name.

        Raises `Broken` when it is not there: a commit has promised it.
        """
        try:
            footer = pq.read_metadata(path)
        except FileNotFoundError as error:
            raise Broken("a file that a commit named is not there", place=path) from error
        return self._written(Path(path), footer, self.snapshot().field_ids, {}, FRESH_SPEC)

    def _written(
        self,
        path: Path,
        footer: pq.FileMetaData,
        ids: Mapping[str, int],
        partition: dict[str, int],
        spec_id: int,
    ) -> WrittenFile:
        size = path.stat().st_size
        described = describe(f"file://{path}", size, footer, self.definition, ids, partition)
        return WrittenFile(self.name, str(path), footer.num_rows, size, spec_id, described)

    def commit(self, commit: Commit) -> Snapshot:
        """Make files and offsets the table's next snapshot, all or nothing; returns when durable.

        Raises `Fenced` if another writer moved offsets that this commit moves, `Conflict` if one
        moved other offsets and the commit cannot stand beside theirs, `Refused` for an exchange
        declared differently, `Unavailable` when catalog or disk fail. Sending the same commit again
        doubles nothing.
        """
        return self.apply(change_of(commit, self._absorbed))

    def replace(self, removed: Iterable[str], files: Iterable[WrittenFile]) -> Snapshot:
        """Put `files` in the place of those at the local paths `removed`, all or nothing.

        Whatever others commit meanwhile stays. Every row of `files` must have its
        `commit_sequence`. The files removed stay on disk, for whoever reads an older snapshot.
        Raises `Conflict` where one of them is no longer in the table, and as `commit` does.
        """
        return self.apply(replacing(removed, files))

    def apply(self, change: Change) -> Snapshot:
        """As `commit`, for any change of the table."""
        self._writable()
        return publish(self, change)

    def _writable(self) -> None:
        if self.catalog.read_only:
            raise Refused("this lake was opened for reading only", place=self.name)

    # ------------------------------------------------------------------ what a commit asks

    @property
    def metadata_folder(self) -> Path:
        """Where metadata documents, manifest lists and manifests stand."""
        return Path(local(self.head().metadata["location"])) / "metadata"

    def now_ms(self, after: Metadata | None = None) -> int:
        """The clock, in milliseconds since 1970, but never before that document's time: Iceberg
        refuses times that run backwards, and clocks do.
        """
        now = int(self._clock().timestamp() * 1000)
        return max(now, after["last-updated-ms"]) if after else now

    def expired(self, old: Metadata) -> set[int]:
        """Ids of the snapshots that the next commit lets go of."""
        if self.name not in RECORD_TABLES:
            return expire.expired(old, old["last-sequence-number"], self._keep_snapshots)
        retired = retired_from_json(old["properties"].get(RETIRED, "{}"))
        return expire.expired(old, self._absorbed("commits"), self._keep_snapshots, retired.commit)

    def metadata_name(self, before: str, unique: UUID) -> str:
        """File name of the document that follows the one at `before`."""
        version = int(before.rsplit("/", 1)[1].split("-", 1)[0]) + 1
        return f"{version:05d}-{unique}.metadata.json"

    def manifest_format(self, document: Metadata, spec_id: int) -> ManifestFormat:
        """How manifests of that table partition spec are written."""
        key = (document["current-schema-id"], spec_id)
        if key not in self._formats:
            self._formats[key] = ManifestFormat(document, spec_id)
        return self._formats[key]

    def adopt(self, location: str) -> Head:
        """Read back the document that this process has just swapped in."""
        with self._lock:
            return self._load(location)

    def keep_index(self) -> None:
        """Keep the file index beside the table, for whoever opens it next."""
        keep_index(self.metadata_folder.parent, self.head().columns, self.unique())

    def _data_folder(self, day: date | None, bucket: Bucket | None) -> Path:
        """The folder of a table partition's files, made if missing; nothing reads its name."""
        home = Path(local(self.head().metadata["location"]))
        folder = home / "data"
        if day is not None:
            folder /= f"exchange_date={day}"
        if bucket is not None:
            folder /= f"symbol_bucket={bucket.number}-of-{bucket.of}"
        if not folder.exists():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(folder, error) from error
            sync([parent for parent in folder.parents if parent.is_relative_to(home)])
        return folder

    # ------------------------------------------------------------------ making and evolving

    def ensure(self, folder: Path) -> None:
        """Make the table below `folder` if there is none; add the columns that it lacks."""
        location = self.catalog.location(self.name)
        if location is None:
            self._create(folder)
        while (head := self.head()) and (
            wanted := metadata.evolve(head.metadata, self.definition)
        ) is not None:
            self._replace(head, wanted)

    @property
    def buckets(self) -> int:
        """Into how many buckets of symbols a day settles now."""
        return buckets_of(self.head().metadata)

    def set_buckets(self, of: int) -> None:
        """Have days settle into that many buckets from now on: files that there are stay as they
        are, and answer together with newer ones. Raises `Refused` for a table without days.
        """
        self._writable()
        if not self.definition.partitioned:
            raise Refused("a ledger has no buckets of symbols", place=self.name)
        while self.buckets != of:
            head = self.head()
            self._replace(head, metadata.with_buckets(head.metadata, of))

    def _create(self, folder: Path) -> None:
        home = folder / self.name
        (home / "metadata").mkdir(parents=True, exist_ok=True)
        (home / "data").mkdir(exist_ok=True)
        unique = self.unique()
        document = metadata.new_table(
            self.definition, f"file://{home}", str(self.unique()), self.now_ms()
        )
        path = home / "metadata" / f"00000-{unique}.metadata.json"
        self._publish_document(path, document)
        sync([home, folder])
        if not self.catalog.create(self.name, f"file://{path}"):
            path.unlink()

    def _replace(self, head: Head, wanted: Metadata) -> None:
        new, _ = metadata.succeed(head.metadata, wanted, head.location, self.now_ms(head.metadata))
        path = self.metadata_folder / self.metadata_name(head.location, self.unique())
        self._publish_document(path, new)
        if not self.catalog.swap(self.name, head.location, f"file://{path}", path.exists):
            path.unlink()

    @staticmethod
    def _publish_document(path: Path, document: Metadata) -> None:
        write_new(path, orjson.dumps(document))
        sync([path, path.parent])
