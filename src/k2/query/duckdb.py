"""The embedded engine: DuckDB in process, over Parquet files and Arrow tables.

One database without contents per engine; each query gets a cursor of its own, so that any thread
may ask. Nobody above this file names `duckdb`.
"""

import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from k2.errors import BadInput, Broken, K2Error, Refused, Unavailable
from k2.query.guard import TEXT_LIMIT, names_read
from k2.query.port import PartialFile, Pin, Source, Statement
from k2.query.stopping import Watch

_SETTINGS: Final = {
    "TimeZone": "'UTC'",
    # Footers of files that never change: without it each query reads them all again.
    "parquet_metadata_cache": "true",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Fetching the newest rows' columns by row number reads files a second time: it trebles the time
    # of what a window of time (see `records`) has narrowed already.
    "late_materialization_max_rows": "0",
    # The plan by nested loops that is chosen below this takes minutes over many files.
    "asof_loop_join_threshold": "0",
}

_SELECT: Final = duckdb.StatementType.SELECT
_BATCH_ROWS: Final = 16_384

_IN_RANGE: Final = (
    "f.log_topic = r.topic and f.log_id = r.log_id and f.log_partition = r.part "
    "and f.log_offset >= r.first and f.log_offset < r.past"
)


class DuckDB:
    """An engine in this process (see `port.Engine`).

    `folders` are those that a user's SQL may read tables from. `memory` is a limit in bytes;
    beyond it queries go to disk, in the folder `spill`, or are refused without one.
    """

    def __init__(
        self,
        *,
        folders: Sequence[Path] = (),
        memory: int | None = None,
        spill: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self._settings = dict(_SETTINGS)
        self._settings["temp_directory"] = _sql(str(spill) if spill else "")
        if threads is not None:
            self._settings["threads"] = str(int(threads))
        if memory is not None:
            self._settings["memory_limit"] = f"'{int(memory)}B'"
        self._folders = folders
        self._database = _open(self._settings)
        self._fenced: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()
        self._watch = Watch()

    def run(
        self,
        statement: Statement,
        sources: Mapping[str, Source | pa.Table],
        *,
        timeout: float | None = None,
    ) -> pa.Table:
        """The statement's rows (see `port.Engine`)."""
        with self._cursor(self._database, timeout) as cursor:
            try:
                return _run(cursor, statement, sources, template=False)
            except duckdb.BinderException:
                # Files of an earlier version may lack a column and no tail brings it: an empty
                # table with all columns does. Not done always, since it costs a millisecond.
                return _run(cursor, statement, sources, template=True)

    def reads(self, text: str, relations: Collection[str]) -> frozenset[str]:
        """The relations that a user's SQL reads (see `port.Engine`)."""
        if len(text) > TEXT_LIMIT:
            raise BadInput(
                "the SQL is too long", found=f"{len(text)} characters", expected=f"{TEXT_LIMIT}"
            )
        with self._cursor(self._database, None) as cursor:
            parsed = cursor.execute("select json_serialize_sql($text)", {"text": text}).fetchall()
        try:
            tree = json.loads(parsed[0][0])
        except RecursionError as error:
            raise BadInput("the SQL is nested too deeply") from error
        return names_read(tree, relations, self._functions)

    def ask(
        self,
        text: str,
        sources: Mapping[str, Source | pa.Table],
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> tuple[pa.Table, bool]:
        """A user's SELECT (see `port.Engine`), in a database that can reach the tables alone."""
        with self._cursor(self._fence(), timeout) as cursor:
            # The folders that may be read could be written to as well: once more, by another path.
            if [found.type for found in cursor.extract_statements(text)] != [_SELECT]:
                raise Refused("only one SELECT is allowed")
            for name, source in sources.items():
                _name(cursor, name, source)
            reader = cursor.sql(text).to_arrow_reader(_BATCH_ROWS)
            batches, rows = [], 0
            for batch in reader:
                batches.append(batch)
                rows += batch.num_rows
                if limit is not None and rows > limit:
                    break
            found = _plain(pa.Table.from_batches(batches, reader.schema))
        return (found, False) if limit is None else (found.slice(0, limit), rows > limit)

    def close(self) -> None:
        """Let go of memory and files."""
        self._database.close()
        if self._fenced is not None:
            self._fenced.close()
        del self._database, self._fenced

    @cached_property
    def _functions(self) -> frozenset[str]:
        """Names of the functions that compute something from their arguments."""
        with self._cursor(self._database, None) as cursor:
            found = cursor.execute(
                "select distinct lower(function_name) from duckdb_functions() "
                "where function_type in ('scalar', 'aggregate', 'macro')"
            ).fetchall()
        return frozenset(name for (name,) in found)

    def _fence(self) -> duckdb.DuckDBPyConnection:
        """The database for users' SQL: it reads below the folders, and nothing can be set."""
        with self._lock:
            if self._fenced is None:
                folders = ", ".join(_sql(str(folder)) for folder in self._folders)
                self._fenced = _open(
                    self._settings
                    | {
                        # What is read is bounded by memory: a user's query does not fill the disk.
                        "temp_directory": "''",
                        "allowed_directories": f"[{folders}]",
                        "enable_external_access": "false",
                        "lock_configuration": "true",
                    }
                )
            return self._fenced

    @contextmanager
    def _cursor(
        self, database: duckdb.DuckDBPyConnection, timeout: float | None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = database.cursor()
        try:
            with translated(timeout), self._watch.over(cursor.interrupt, timeout):
                yield cursor
        finally:
            cursor.close()


def _open(settings: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(":memory:")
    for name, value in settings.items():
        database.execute(f"set {name} = {value}")
    return database


def _name(cursor: duckdb.DuckDBPyConnection, name: str, source: Source | pa.Table) -> None:
    """Let the source be read by its name."""
    if isinstance(source, pa.Table):
        cursor.register(name, source)
        return
    values: dict[str, Any] = {}
    relation = _relation(cursor, name, source, values, template=True)
    columns = ", ".join(f'"{column}"' for column in source.columns.names)
    cursor.sql(f"select {columns} from {relation}", params=values).create_view(name)


def _run(
    cursor: duckdb.DuckDBPyConnection,
    statement: Statement,
    sources: Mapping[str, Source | pa.Table],
    *,
    template: bool,
) -> pa.Table:
    text, values = statement.text, dict(statement.values)
    for name, source in sources.items():
        relation = name
        if isinstance(source, pa.Table):
            cursor.register(name, source)
        else:
            relation = _relation(cursor, name, source, values, template=template)
        text = text.replace(f"{{{name}}}", relation)
    used = {name: value for name, value in values.items() if re.search(rf"\${name}\b", text)}
    return _plain(cursor.sql(text, params=used).to_arrow_table())


def _plain(found: pa.Table) -> pa.Table:
    """The same with times in "UTC", which DuckDB calls Etc/UTC."""
    fields = [
        field.with_type(pa.timestamp("us", "UTC"))
        if pa.types.is_timestamp(field.type) and field.type.tz
        else field
        for field in found.schema
    ]
    return found.cast(pa.schema(fields))


def _relation(
    cursor: duckdb.DuckDBPyConnection,
    name: str,
    source: Source,
    values: dict[str, Any],
    *,
    template: bool,
) -> str:
    """The source as a relation of SQL: its paths are bound, its tables registered."""
    parts = []
    if source.files:
        values[f"{name}_files"] = list(source.files)
        options = ", union_by_name = true" if source.mixed else ""
        options += ", filename = true" if source.named else ""
        parts.append(f"from read_parquet(${name}_files{options})")
    if source.partial and source.pin is not None:
        parts.append(_pinned(cursor, name, source.partial, source.pin, values))
    has_tail = source.tail is not None and source.tail.num_rows > 0
    if has_tail or template or not parts:
        rows = source.tail if has_tail else source.columns.empty_table()
        cursor.register(f"{name}_tail", rows)
        if source.pin is None or not has_tail:
            parts.append(f"select * from {name}_tail")
        else:
            cursor.register(f"{name}_ranges", _ranges(source.pin))
            parts.append(f"select f.* from {name}_tail f semi join {name}_ranges r on {_IN_RANGE}")
    joined = " union all by name ".join(parts)
    if not source.defaults or not source.mixed:
        return f"({joined}) as {name}"
    filled = ", ".join(f"coalesce({c}, {_sql(v)}) as {c}" for c, v in source.defaults.items())
    return f"(select * replace ({filled}) from ({joined})) as {name}"


def _pinned(
    cursor: duckdb.DuckDBPyConnection,
    name: str,
    partial: Sequence[PartialFile],
    pin: Pin,
    values: dict[str, Any],
) -> str:
    """The rows of a pinned state in files that hold others too."""
    paths = [file.path for file in partial]
    cursor.register(
        f"{name}_partial",
        pa.table({"path": pa.array(paths), "sequence": [file.sequence for file in partial]}),
    )
    cursor.register(f"{name}_ranges", _ranges(pin))
    values |= {f"{name}_paths": paths, f"{name}_pin": pin.sequence}
    return (
        f"select f.* exclude (filename) from read_parquet(${name}_paths, union_by_name = true, "
        f"filename = true) f join {name}_partial p on f.filename = p.path "
        f"left join {name}_ranges r on {_IN_RANGE} "
        f"where coalesce(f.commit_sequence, p.sequence) <= ${name}_pin or r.topic is not null"
    )


def _ranges(pin: Pin) -> pa.Table:
    return pa.table(
        {
            "topic": pa.array([r.topic for r in pin.ranges], pa.string()),
            "log_id": pa.array([r.log_id for r in pin.ranges], pa.string()),
            "part": pa.array([r.partition for r in pin.ranges], pa.int32()),
            "first": pa.array([r.first for r in pin.ranges], pa.int64()),
            "past": pa.array([r.end for r in pin.ranges], pa.int64()),
        }
    )


def _sql(value: object) -> str:
    """A default of a schema as SQL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = str(value).replace("'", "''")
    return f"'{text}'"


@contextmanager
def translated(timeout: float | None = None) -> Iterator[None]:
    """DuckDB's exceptions as K2's, most specific first."""
    try:
        yield
    except duckdb.Error as error:
        raise _translate(error, timeout) from error


def _translate(error: duckdb.Error, timeout: float | None) -> K2Error:
    first = str(error).partition("\n")[0]
    match error:
        case duckdb.InterruptException():
            return Refused(
                f"the query took longer than {timeout:g} seconds" if timeout else "cancelled",
                hint="ask for fewer symbols or a shorter range, or raise the limit",
            )
        case duckdb.OutOfMemoryException():
            return Refused(
                "the query needs more memory than it may have",
                hint="ask for fewer symbols or a shorter range, or set a row limit",
            )
        case duckdb.IOException() | duckdb.HTTPException():
            return Unavailable(f"a file cannot be read: {first}", retry_after=1.0)
        case duckdb.PermissionException():
            return Refused(f"not allowed: {first}")
        case duckdb.OutOfRangeException():
            return BadInput(f"a value is out of range: {first}")
        case duckdb.InternalException() | duckdb.FatalException():
            return Broken(f"the engine failed: {first}")
    return BadInput(f"the query cannot run: {first}")
