"""One SQLite file shared by threads and processes: connections, transactions, errors.

A connection serves one thread at a time and goes back to a pool, so threads that end leak nothing.
What a `writing` block did is on the disk when the block has ended, or not at all. A process that
forks may go on with it, and so may its child.
"""

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final
from weakref import WeakSet

from k2.errors import BadInput, Broken, K2Error, Refused, Unavailable

BUSY_TIMEOUT: Final = timedelta(seconds=10)

_LAYOUT: Final = 1
"""Number of the layout of the tables, kept in the file; another number is another K2's file."""

# Extended codes: of all failures of a disk (10) those that return bytes which were not written.
_IOERR_DATA: Final = 10 | 32 << 8
_IOERR_CORRUPTFS: Final = 10 | 33 << 8

_BROKEN: Final = {
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_FORMAT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "this is no file of K2's, or its first page is damaged",
    _IOERR_DATA: "the disk returned damaged bytes",
    _IOERR_CORRUPTFS: "the file system is damaged",
}
_AWAY: Final = {
    sqlite3.SQLITE_BUSY: ("somebody else holds the file locked", "look for a process that hangs"),
    sqlite3.SQLITE_LOCKED: ("somebody else holds the file locked", "try again"),
    sqlite3.SQLITE_PROTOCOL: ("too many processes open the file at once", "try again"),
    sqlite3.SQLITE_FULL: ("no space is left on the disk", "free some; nothing before this is lost"),
    sqlite3.SQLITE_READONLY: (
        "the file cannot be written",
        "mend its permissions, or its folder's",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the file cannot be opened",
        "is it a file, and may you write there?",
    ),
    sqlite3.SQLITE_PERM: ("the file may not be opened", "mend its permissions"),
    sqlite3.SQLITE_AUTH: ("the file may not be opened", "mend its permissions"),
    sqlite3.SQLITE_IOERR: ("the disk failed", "look at the disk: is it full, is it well?"),
    sqlite3.SQLITE_NOMEM: ("no memory is left", "free some and try again"),
    sqlite3.SQLITE_NOLFS: ("the file system takes no files this large", "move the file"),
    sqlite3.SQLITE_INTERRUPT: ("it was interrupted", "try again"),
}
_RETRY_AFTER_SECONDS: Final = 1.0

_PRAGMAS: Final = (
    # FULL: each commit is synced. Without it WAL stays consistent, and loses the last commits.
    "synchronous = FULL",
    # In pages of 4 KiB. SQLite's own 1000 costs a tenth of the append rate, 16000 makes single
    # appends wait 0.2 s for the disk.
    "wal_autocheckpoint = 4000",
    "journal_size_limit = 67108864",
    "cell_size_check = ON",
)


FAILURES: Final = (sqlite3.Error, UnicodeDecodeError)
"""All that SQLite raises; the second is what Python makes of a damaged text, even in a message."""


def translate(error: sqlite3.Error | UnicodeDecodeError, place: str) -> K2Error:
    """The K2 error that stands for one of SQLite's: `Unavailable`, `Refused` or `Broken`."""
    # Python's own complaints (a closed connection, a wrong number of parameters) have no code.
    code = getattr(error, "sqlite_errorcode", 0)
    if broken := _BROKEN.get(code) or _BROKEN.get(code & 0xFF):
        hint = "stop whatever uses it, keep a copy, and restore the file from a backup"
        return Broken(broken, place=place, found=str(error), hint=hint)
    if away := _AWAY.get(code & 0xFF):
        message = f"{away[0]} ({error})"
        return Unavailable(message, retry_after=_RETRY_AFTER_SECONDS, place=place, hint=away[1])
    if code & 0xFF == sqlite3.SQLITE_TOOBIG:
        return Refused("this is too large for one row", place=place, found=str(error))
    return Broken("SQLite refused what K2 asked of it", place=place, found=str(error))


class Database:
    """An open file; `tables` are the statements that make it, `application` the id that marks it.

    Raises `Unavailable` where the file cannot be opened, made or locked, `Broken` for one that is
    damaged, `BadInput` for another program's, `Refused` for one with another layout.
    """

    def __init__(
        self, path: Path, *, application: int, tables: str, busy_timeout: timedelta = BUSY_TIMEOUT
    ) -> None:
        self.path = path
        self._application = application
        self._timeout = busy_timeout.total_seconds()
        self._closed = False
        self._idle: deque[sqlite3.Connection] = deque()
        self._used = 0
        self._gate = threading.Condition()
        # Threads queue here: SQLite's own way of waiting for a lock is to sleep and look again.
        self._turn = threading.Lock()
        _OPEN.add(self)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            hint = "mend the folder above it"
            raise Unavailable(str(error), place=str(path), hint=hint) from error
        try:
            self._prepare(tables)
        except BaseException:
            self.close()
            raise

    def _prepare(self, tables: str) -> None:
        with self.reading() as connection:
            made = self._is_made(connection)
        with self._connection(str(self.path)) as connection:
            self._enter_wal(connection)
        if made:
            return
        with self.writing() as connection:
            if self._is_made(connection):  # by another process, since
                return
            for statement in filter(str.strip, tables.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {self._application}")
            connection.execute(f"PRAGMA user_version = {_LAYOUT}")

    def _is_made(self, connection: sqlite3.Connection) -> bool:
        """Whether the tables are there; raises for a file that is somebody else's.

        To be asked inside a transaction: another process may be making them.
        """
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (anything,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not (layout or application or anything):
            return False
        if application != self._application:
            hint = "name another file"
            raise BadInput("this file is another program's", place=str(self.path), hint=hint)
        if layout != _LAYOUT:
            raise Refused(
                "another version of K2 made this file",
                place=str(self.path),
                found=f"layout {layout}",
                expected=f"layout {_LAYOUT}",
                hint="use that version, or load the data anew",
            )
        return True

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait for the lock that this needs, however long the timeout: seen when
        # many processes open a new file at the same moment.
        patience = time.monotonic() + self._timeout
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() > patience:
                    raise
                time.sleep(0.005)
            else:
                if mode != "wal":
                    hint = "keep it on a local disk"
                    message = f"this file system cannot share the file (journal mode {mode})"
                    raise Unavailable(message, place=str(self.path), hint=hint)
                return

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._timeout,
            isolation_level=None,  # transactions begin where this file says so
            check_same_thread=False,  # the pool hands a connection to one thread at a time
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _connection(self, place: str) -> Iterator[sqlite3.Connection]:
        with self._gate:
            if self._closed:
                raise Refused("it is closed", place=str(self.path))
            self._used += 1
            connection = self._idle.pop() if self._idle else None
        try:
            connection = connection or self._open()
            yield connection
        except FAILURES as error:
            if connection is not None:
                connection.close()
                connection = None
            raise translate(error, place) from error
        finally:
            with self._gate:
                if connection is not None:
                    self._idle.append(connection)
                if self._closed:
                    self._close_idle()
                self._used -= 1
                self._gate.notify_all()

    @contextmanager
    def reading(self, place: str | None = None) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the file until the block ends."""
        with self._connection(place or str(self.path)) as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextmanager
    def writing(
        self, place: str | None = None, *, patience: timedelta | None = None
    ) -> Iterator[sqlite3.Connection]:
        """A connection that alone may write; durable once the block has ended without an error.

        `patience`: how long to wait for others, if not as long as the file was opened with.
        """
        place = place or str(self.path)
        seconds = self._timeout if patience is None else patience.total_seconds()
        with self._connection(place) as connection:
            if not self._turn.acquire(timeout=seconds):
                hint = "try again"
                raise Unavailable("another thread is writing", place=place, hint=hint)
            try:
                if patience is not None:
                    connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                _roll_back(connection)
                self._turn.release()
                if patience is not None:
                    connection.execute(f"PRAGMA busy_timeout = {int(self._timeout * 1000)}")

    def close(self) -> None:
        """Close every connection; those in use close when their block ends."""
        with self._gate:
            self._closed = True
            self._close_idle()

    def pause(self) -> None:
        """Wait until no connection is in use, close all, and let nobody in until `resume`."""
        self._gate.acquire()
        self._gate.wait_for(lambda: self._used == 0)
        self._close_idle()

    def resume(self) -> None:
        """End a pause, in the thread that began it."""
        self._gate.release()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


# SQLite keeps in the process's memory which locks it holds. A forked child would believe that they
# are its own, although the system gave it none: its parent may then delete the write-ahead log
# while the child appends to it. So no connection is open at the moment of a fork.
_OPEN: Final[WeakSet[Database]] = WeakSet()
_PAUSED: Final[list[Database]] = []


def _before_fork() -> None:
    for database in list(_OPEN):
        database.pause()
        _PAUSED.append(database)


def _after_fork() -> None:
    while _PAUSED:
        _PAUSED.pop().resume()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _roll_back(connection: sqlite3.Connection) -> None:
    # Nothing is open after a commit, nor after the errors for which SQLite rolls back by itself.
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
