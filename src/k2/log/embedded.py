"""The schema registry in one SQLite file: `embedded:PATH`. Ids, subjects and rules as Confluent's.

Safe for many threads and processes at once: whoever registers the same schema gets the same id.
"""

import json
import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from k2.errors import NotFound
from k2.log.database import BUSY_TIMEOUT, Database
from k2.log.evolution import canonical, objections, refuse
from k2.log.port import Access, Registered

_APPLICATION: Final = 0x4B325247  # K2RG

_TABLES: Final = """
CREATE TABLE schemas (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    canonical TEXT NOT NULL UNIQUE,
    schema TEXT NOT NULL
);
CREATE TABLE versions (
    subject TEXT NOT NULL,
    version INTEGER NOT NULL,
    schema_id INTEGER NOT NULL REFERENCES schemas,
    PRIMARY KEY (subject, version),
    UNIQUE (subject, schema_id)
) WITHOUT ROWID
"""


def open_registry(path: str, access: Access | None = None) -> "EmbeddedRegistry":
    """The registry in the file `path`, made if there is none; nobody signs in to a file."""
    return EmbeddedRegistry(Path(path))


class EmbeddedRegistry:
    """`k2.log.port.Registry` in the file `path`, which is made if there is none.

    Two schemas are the same if they differ in spelling and docs only; the text that was registered
    first is kept. The same schema under two subjects has one id.
    """

    def __init__(self, path: Path, *, busy_timeout: timedelta = BUSY_TIMEOUT) -> None:
        self._database = Database(
            path, application=_APPLICATION, tables=_TABLES, busy_timeout=busy_timeout
        )
        self._schemas: dict[int, Mapping[str, Any]] = {}  # an id never changes its meaning

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """The schema's id, made if new.

        A version that the subject already has is never checked again, so that a writer with an
        older K2 goes on. Raises `Refused`, naming the field, for a change that is not allowed, and
        `BadInput` for what is no Avro record schema.
        """
        text = canonical(schema)
        with self._database.reading(f"subject {subject}") as connection:
            known = _find(connection, subject, text)
        if known is not None:
            return known
        with self._database.writing(f"subject {subject}") as connection:
            if (known := _find(connection, subject, text)) is not None:
                return known
            version = 1
            if latest := _latest(connection, subject):
                version = latest.version + 1
                refuse(subject, latest, objections(schema, latest.schema))
            # Looked for first: an insert that is ignored would use up an id all the same.
            row = connection.execute(
                "SELECT id FROM schemas WHERE canonical = ?", (text,)
            ).fetchone()
            made = row[0] if row else _insert(connection, text, schema)
            connection.execute("INSERT INTO versions VALUES (?, ?, ?)", (subject, version, made))
        return int(made)

    def check(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Why the schema could not be the subject's next version; empty if it could, or is one."""
        text = canonical(schema)
        with self._database.reading(f"subject {subject}") as connection:
            known = _find(connection, subject, text)
            latest = _latest(connection, subject)
        if known is not None or latest is None:
            return []
        return objections(schema, latest.schema)

    def schema(self, schema_id: int) -> Mapping[str, Any]:
        """The schema with this id; `NotFound` if there is none."""
        if (known := self._schemas.get(schema_id)) is not None:
            return known
        with self._database.reading(f"schema {schema_id}") as connection:
            row = connection.execute(
                "SELECT schema FROM schemas WHERE id = ?", (schema_id,)
            ).fetchone()
        if row is None:
            raise NotFound(f"there is no schema {schema_id}", place=str(self._database.path))
        found: Mapping[str, Any] = json.loads(row[0])
        self._schemas[schema_id] = found
        return found

    def versions(self, subject: str) -> list[Registered]:
        """All versions of the subject, oldest first; `NotFound` if there is none."""
        with self._database.reading(f"subject {subject}") as connection:
            rows = connection.execute(f"{_VERSIONS} ORDER BY version", (subject,)).fetchall()
        if not rows:
            raise NotFound(
                f"there is no subject called {subject!r}", place=str(self._database.path)
            )
        return [_registered(subject, row) for row in rows]

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT DISTINCT subject FROM versions ORDER BY subject")
            return [subject for (subject,) in rows.fetchall()]

    def close(self) -> None:
        """Close the file."""
        self._database.close()


_VERSIONS: Final = """
SELECT schema_id, version, schema FROM versions JOIN schemas ON schemas.id = schema_id
WHERE subject = ?
"""


def _registered(subject: str, row: tuple[int, int, str]) -> Registered:
    schema_id, version, schema = row
    return Registered(schema_id, subject, version, json.loads(schema))


def _latest(connection: sqlite3.Connection, subject: str) -> Registered | None:
    row = connection.execute(f"{_VERSIONS} ORDER BY version DESC LIMIT 1", (subject,)).fetchone()
    return _registered(subject, row) if row else None


def _find(connection: sqlite3.Connection, subject: str, text: str) -> int | None:
    row = connection.execute(
        "SELECT schema_id FROM versions JOIN schemas ON schemas.id = schema_id "
        "WHERE subject = ? AND canonical = ?",
        (subject, text),
    ).fetchone()
    return int(row[0]) if row else None


def _insert(connection: sqlite3.Connection, text: str, schema: Mapping[str, Any]) -> int:
    made = connection.execute(
        "INSERT INTO schemas (canonical, schema) VALUES (?, ?)", (text, json.dumps(dict(schema)))
    )
    assert made.lastrowid is not None
    return made.lastrowid
