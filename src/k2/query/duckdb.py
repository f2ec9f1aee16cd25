"""The embedded engine: DuckDB in process, over Parquet files and Arrow tables.

Each query gets a cursor of its own, so that any thread may ask. Nobody above this file names
`duckdb`.
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
from k2.model import plain_type
from k2.query.guard import TEXT_LIMIT, names_read
from k2.query.port import Source, Statement
from k2.query.relation import to_relation, to_sql
from k2.query.selection import check_text
from k2.query.stopping import Watch, limits
from k2.query.weight import weigh
from k2.traces import step

_SETTINGS: Final = {
    "TimeZone": "'UTC'",
    # Footers of files that never change: without it each query reads them all again.
    "parquet_metadata_cache": "true",
    # The system keeps files of this machine's disk; a server would keep some of each it ever read.
    "enable_external_file_cache": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Fetching the newest rows' columns by row number reads files a second time: it trebles the time
    # of what a window of time (see `records`) has narrowed already.
    "late_materialization_max_rows": "0",
    # The plan by nested loops that is chosen below this takes minutes over many files.
    "asof_loop_join_threshold": "0",
}

# Small queries are quicker on one thread, and four askers at once get half as many answers again,
# since their threads do not get in each other's way.
_SMALL_ROWS: Final = 200_000
_MIDDLING_ROWS: Final = 1_000_000
_SELECT: Final = duckdb.StatementType.SELECT
_BATCH_ROWS: Final = 16_384


class DuckDB:
    """An engine in this process (see `port.Engine`).

    `folders` are those that a user's SQL may read tables from. `memory` is a limit in bytes, for
    all together; beyond it queries go to disk, in the folder `spill`, or are refused without one.
    Three databases share it, all without contents: one uses all threads, one has a single thread,
    one is for users' SQL.
    """

    def __init__(
        self,
        *,
        folders: Sequence[Path] = (),
        memory: int | None = None,
        spill: Path | None = None,
        threads: int | None = None,
    ) -> None:
        settings = dict(_SETTINGS)
        settings["temp_directory"] = to_sql(str(spill) if spill else "")
        if threads is not None:
            settings["threads"] = str(int(threads))
        self._wanted = {
            "all threads": settings | _memory(memory, 2),
            "one thread": settings | _memory(memory, 4) | {"threads": "1"},
            "fenced": settings | _memory(memory, 4) | _walls(folders),
        }
        self._opened: dict[str, duckdb.DuckDBPyConnection] = {}
        self._running = 0
        self._lock = threading.Lock()
        self._watch = Watch()

    def run(self, statement: Statement, sources: Mapping[str, Source | pa.Table]) -> pa.Table:
        """The statement's rows (see `port.Engine`)."""
        rows = _rows_of(sources)
        weigh(rows)
        with (
            step("query", db__system__name="duckdb", db__query__text=statement.text),
            self._counted() as beside,
            self._cursor(_fit(rows, beside)) as cursor,
        ):
            try:
                return _run(cursor, statement, sources, template=False)
            except duckdb.BinderException:
                # Files of an earlier version may lack a column and no tail brings it: an empty
                # table with all columns does. Not done always, since it costs a millisecond.
                return _run(cursor, statement, sources, template=True)

    def reads(self, text: str, relations: Collection[str]) -> frozenset[str]:
        """The relations that a user's SQL reads (see `port.Engine`)."""
        check_text("the SQL", text)
        if len(text) > TEXT_LIMIT:
            raise BadInput(
                "the SQL is too long", found=f"{len(text)} characters", expected=f"{TEXT_LIMIT}"
            )
        with self._cursor("one thread") as cursor:
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
    ) -> tuple[pa.Table, bool]:
        """A user's SELECT (see `port.Engine`), in a database that can reach the tables alone."""
        weigh(_rows_of(sources))
        with (
            step("sql", db__system__name="duckdb", db__query__text=text),
            self._cursor("fenced") as cursor,
        ):
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
        with self._lock:
            for database in self._opened.values():
                database.close()
            self._opened.clear()
            self._wanted.clear()

    @contextmanager
    def _counted(self) -> Iterator[int]:
        """How many queries run already, while this one is counted among them."""
        with self._lock:
            beside = self._running
            self._running += 1
        try:
            yield beside
        finally:
            with self._lock:
                self._running -= 1

    @cached_property
    def _functions(self) -> frozenset[str]:
        """Names of the functions that compute something from their arguments."""
        with self._cursor("one thread") as cursor:
            found = cursor.execute(
                "select distinct lower(function_name) from duckdb_functions() "
                "where function_type in ('scalar', 'aggregate', 'macro')"
            ).fetchall()
        return frozenset(name for (name,) in found)

    @contextmanager
    def _cursor(self, name: str) -> Iterator[duckdb.DuckDBPyConnection]:
        with translated(of_user=name == "fenced"):
            cursor = self._open(name).cursor()
            try:
                with self._watch.over(cursor.interrupt):
                    yield cursor
            finally:
                cursor.close()

    def _open(self, name: str) -> duckdb.DuckDBPyConnection:
        """The database, opened when it is first asked for: each takes some 15 ms."""
        with self._lock:
            if name not in self._opened:
                if name not in self._wanted:
                    raise Unavailable("the engine is closed")
                database = duckdb.connect(":memory:")
                for setting, value in self._wanted[name].items():
                    database.execute(f"set {setting} = {value}")
                self._opened[name] = database
            return self._opened[name]


def _rows_of(sources: Mapping[str, Source | pa.Table]) -> int:
    """How many rows there are to read, at most."""
    return sum(s.num_rows if isinstance(s, pa.Table) else s.rows for s in sources.values())


def _fit(rows: int, beside: int) -> str:
    """The database for a query: one thread for what is small, or middling and not alone."""
    return "one thread" if rows <= (_MIDDLING_ROWS if beside else _SMALL_ROWS) else "all threads"


def _walls(folders: Sequence[Path]) -> dict[str, str]:
    """Settings of the database for users' SQL: it reads below the folders, and nothing can be set.

    It uses no disk: what a user asks for is bounded by memory.
    """
    return {
        "temp_directory": "''",
        "allowed_directories": to_sql([str(folder) for folder in folders]),
        "enable_external_access": "false",
        "lock_configuration": "true",
    }


def _memory(limit: int | None, share: int) -> dict[str, str]:
    return {} if limit is None else {"memory_limit": f"'{limit // share}B'"}


def _name(cursor: duckdb.DuckDBPyConnection, name: str, source: Source | pa.Table) -> None:
    """Let the source be read by its name."""
    if isinstance(source, pa.Table):
        cursor.register(name, source)
        return
    values: dict[str, Any] = {}
    relation = to_relation(cursor, name, source, values, template=True, by_name=source.mixed)
    columns = ", ".join(f'"{column}"' for column in source.columns.names)
    # A view cannot have parameters; and one that is not temporary would be seen by other cursors.
    written = re.sub(r"\$(\w+)", lambda found: to_sql(values[found[1]]), relation)
    cursor.execute(f"create temp view {name} as select {columns} from {written}")


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
            # By name, the engine also merges the files' statistics while it plans, and leaves out
            # what is constant: bars of many rows take two thirds of the time. It costs 0.3 ms a
            # file, so that small questions, and users' (planned twice), do without.
            by_name = source.mixed or source.rows > _SMALL_ROWS
            relation = to_relation(cursor, name, source, values, template=template, by_name=by_name)
        text = text.replace(f"{{{name}}}", relation)
    used = {name: value for name, value in values.items() if re.search(rf"\${name}\b", text)}
    return _plain(cursor.sql(text, params=used).to_arrow_table())


def _plain(found: pa.Table) -> pa.Table:
    """The same without dictionaries, and with times in "UTC", which DuckDB calls Etc/UTC."""
    return found.cast(
        pa.schema([field.with_type(_plain_type(field.type)) for field in found.schema])
    )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.tz:
        return pa.timestamp("us", "UTC")
    return plain_type(kind)


_PATH: Final = re.compile(r"['\"](/[^'\"]*\.parquet)['\"]")
_CUT_SHORT: Final = re.compile("Could not read enough bytes")
# What DuckDB says of files with bytes changed: it has no class of exceptions for them.
_DAMAGE: Final = re.compile(
    rf"{_CUT_SHORT.pattern}|{_PATH.pattern}|Parquet file|[Cc]orrupted|TProtocolException|TType"
    "|don't know what type"
)


@contextmanager
def translated(*, of_user: bool = False) -> Iterator[None]:
    """DuckDB's exceptions as K2's, most specific first; `of_user`: the SQL is not K2's own."""
    try:
        yield
    except duckdb.Error as error:
        raise _translate(error, of_user) from error


def _translate(error: duckdb.Error, of_user: bool) -> K2Error:
    first = str(error).partition("\n")[0]
    match error:
        case duckdb.InterruptException():
            return limits().refusal()
        case duckdb.OutOfMemoryException():
            return Refused(
                "the query needs more memory than it may have",
                hint="ask for fewer symbols or a shorter range, or set a row limit",
            )
        case duckdb.IOException() if not _CUT_SHORT.search(first):
            return Unavailable(f"a file cannot be read: {first}", retry_after=1.0)
        case duckdb.PermissionException():
            return Refused(f"not allowed: {first}")
        case duckdb.OutOfRangeException() | duckdb.ConversionException():
            hint = "price::DECIMAL(28,8) * quantity has room" if "DECIMAL(18)" in first else None
            return BadInput(f"a value is out of range: {first}", hint=hint)
        case duckdb.InternalException() | duckdb.FatalException():
            return Broken(f"the engine failed: {first}")
    if _DAMAGE.search(first):
        path = _PATH.search(first)
        return Broken(
            "a data file is damaged",
            place=path[1] if path else None,
            found=first,
            hint="`k2 audit` names the file and what is missing; restore it from a copy",
        )
    if of_user:
        return BadInput(f"the SQL cannot run: {first}")
    return Broken(f"a statement of K2's own failed: {first}")
