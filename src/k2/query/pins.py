"""Pinned datasets: made, listed, read and verified.

A pin is of what was committed: of records that are in the log alone nothing is sure yet (they may
be shed under overload, and come in later), so that they are told of, and are not part of it.
"""

import json
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from k2.errors import BadInput, Broken, NotFound, Refused, Unavailable
from k2.lake import Dataset, keep_pin, pin_of, pins_of, remove_pin
from k2.model import TIMESTAMP_TYPE
from k2.query.again import Content, Verdict, ViewOf, check_version, content_of
from k2.query.answer import Answer, told
from k2.query.digest import DEFINITION, digest_of, fields_of, to_schema
from k2.query.page import from_token, to_token
from k2.query.port import Engine, Pin
from k2.query.question import (
    Moment,
    Question,
    moment_from_json,
    question_from_json,
    question_to_json,
)
from k2.query.records import Wanted, fetch_records, own_columns
from k2.query.selection import NOW, Past, Selection, check_text
from k2.query.state import State
from k2.query.stopping import limited
from k2.query.view import View

CORRECTED: Final = "trades"
CORRECTIONS: Final = "corrections"
_ALL: Final = Selection()
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

PINS: Final = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("commit", pa.int64(), nullable=False),
        pa.field("pinned_at", TIMESTAMP_TYPE, nullable=False),
        pa.field("author", pa.string()),
        pa.field("note", pa.string()),
        pa.field("hash", pa.string(), nullable=False),
        pa.field("hash_definition", pa.int32(), nullable=False),
        pa.field("snapshot_id", pa.string()),
        pa.field("corrections_commit", pa.int64()),
        pa.field("question", pa.string(), nullable=False),
        pa.field("fields", pa.string(), nullable=False),
        pa.field("schema_id", pa.int32()),
        pa.field("offsets", pa.string(), nullable=False),
        pa.field("days", pa.string(), nullable=False),
    ]
)
"""Columns of a list of pins. `question`, `fields`, `offsets` and `days` are JSON, as the ledger has
them; ids are text, since JavaScript's numbers end at 2^53.
"""

VERDICTS: Final = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("ok", pa.bool_(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("found_rows", pa.int64()),
        pa.field("hash", pa.string(), nullable=False),
        pa.field("found_hash", pa.string()),
        pa.field("problem", pa.string()),
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)
"""Columns of what `verify` finds. Nothing is found where the rows could not be read: `problem` says
why.
"""


@dataclass(frozen=True)
class Wish:
    """What is to be pinned: records of a kind, and the columns that count (empty: the kind's own).

    Raises `BadInput` for a name that a path or a command could not hold.
    """

    name: str
    kind: str
    selection: Selection = _ALL
    fields: tuple[str, ...] = ()
    past: Past = NOW
    author: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.name):
            raise BadInput(
                f"{self.name!r} cannot name a pin",
                place="name",
                expected="1 to 128 letters, digits and . _ -, the first a letter or digit",
            )
        for what, text in (("author", self.author), ("note", self.note)):
            if text is not None:
                check_text(f"the {what}", text)


@dataclass(frozen=True)
class Kept:
    """A dataset, as a question that can be asked."""

    dataset: Dataset
    asked: Question
    moment: Moment
    schema: pa.Schema


class Pins:
    """The pins of one lake. Any thread may ask; `timeout` is in seconds."""

    def __init__(self, state: State, engine: Engine, view_of: ViewOf) -> None:
        self._state = state
        self._engine = engine
        self._view_of = view_of

    def create(self, wish: Wish, *, timeout: float | None = None) -> tuple[Dataset, list[str]]:
        """Pin the rows that are wished for, and what a reader should know of it.

        The same wish again changes nothing, as long as it is of the same rows. Raises `NotFound`
        where nothing was committed, `Refused` for a name that is taken, `BadInput` for what cannot
        be pinned.
        """
        with limited(timeout):
            asked = Question(wish.kind, wish.selection, history=wish.past.history)
            moment = self._moment(wish.kind, wish.past)
            view = self._view_of(wish.kind, asked.past, wish.selection, moment.page())
            names = own_columns(view, wish.fields)
            schema = view.shown.empty_table().select(names).schema
            fields = fields_of(schema)
            content = content_of(self._engine, view, asked, moment, to_schema(fields))
            commit = self._state.committed(wish.kind, moment.pin.sequence)
            question = question_to_json(asked)
            if moment.known_at is not None:
                question["known_at"] = moment.known_at.isoformat()
            dataset = Dataset(
                name=wish.name,
                pinned_at=self._state.now(),
                author=wish.author,
                note=wish.note,
                table=wish.kind,
                commit=commit.number,
                snapshot_id=commit.snapshot_id,
                corrections_commit=(
                    moment.corrections.sequence if wish.kind == CORRECTED else None
                ),
                question=_to_text(question),
                fields=_to_text(fields),
                schema_id=commit.schema_id,
                offsets=commit.offsets,
                rows=content.rows,
                days=_to_text(content.days),
                hash=content.hash,
                hash_definition=DEFINITION,
            )
            kept = keep_pin(self._state.lake, dataset)
            self._check_held(kept, wish, moment)
            return kept, self._notes(wish, view)

    def _check_held(self, kept: Dataset, wish: Wish, moment: Moment) -> None:
        """Take the pin back where its rows were retired while it was made: from now on it holds
        them, but it does not bring them back.
        """
        try:
            self._state.view(wish.kind, page=moment.page(), selection=wish.selection)
        except Refused:
            remove_pin(self._state.lake, kept.name, at=self._state.now(), note="retired meanwhile")
            raise

    def _notes(self, wish: Wish, view: View) -> list[str]:
        """What is not part of the pin, though it may seem to be."""
        if wish.past.as_of is not None:
            return []
        notes = []
        waiting = self._state.lag_messages([view])
        if waiting:
            notes.append(
                f"{waiting:,} {wish.kind} in the log are not committed yet, and not part of the pin"
            )
        shed = sum(each.records for each in self._state.shed(wish.kind, wish.selection.exchanges))
        if shed:
            notes.append(
                f"{shed:,} {wish.kind} were left in the log under overload, and are not part of "
                "the pin: `shed` lists them"
            )
        return notes

    def _moment(self, kind: str, past: Past) -> Moment:
        """The committed state that is meant. Raises `NotFound` where there is none."""
        known_at = None
        if past.as_known_at is not None:
            known_at = self._state.known_at(kind, past.as_known_at)
        commit = self._state.last_commit(kind, past.as_of)
        if not commit:
            raise NotFound(
                f"nothing was committed to {kind} yet",
                hint="only what is committed can be pinned: `k2 ingest` commits what is in the log",
            )
        beside = 0
        if kind == CORRECTED:
            with suppress(NotFound):  # there were none by then
                beside = self._state.last_commit(CORRECTIONS, past.as_of, zones_of=kind)
        return Moment(Pin(commit), Pin(beside), known_at)

    def standing(self) -> list[Dataset]:
        """All pins that stand, by name."""
        return list(pins_of(self._state.lake).values())

    def get(self, name: str) -> Dataset:
        """The pin of that name. Raises `NotFound`."""
        return pin_of(self._state.lake, name)

    def remove(self, name: str, *, author: str | None = None, note: str | None = None) -> Dataset:
        """Let go of a pin; what it was. Raises `NotFound`."""
        return remove_pin(self._state.lake, name, at=self._state.now(), author=author, note=note)

    def open(self, name: str) -> Kept:
        """The pin of that name, to be asked. Raises `NotFound`, and `Refused` for one whose hash a
        newer version of K2 made.
        """
        found = self.get(name)
        check_version(found.hash_definition, DEFINITION, name)
        question = json.loads(found.question)
        known_at = question.pop("known_at", None)
        state = {
            "commit": found.commit,
            "corrections": {"commit": found.corrections_commit or 0},
            "known_at": known_at,
        }
        return Kept(
            found,
            question_from_json(found.table, question),
            moment_from_json(state),
            to_schema(json.loads(found.fields)),
        )

    def records(
        self,
        name: str,
        kind: str,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The rows of a pin of that kind: all, the newest `last`, or a page of `limit` behind
        `after`.

        Raises `Broken` where all were asked for and are not those that were pinned, `BadInput` for
        a pin of another kind.
        """
        with limited(timeout):
            began = time.perf_counter()
            kept = self.open(name)
            of = kept.dataset
            if of.table != kind:
                raise BadInput(f"the pin {name} is of other records", found=of.table, expected=kind)
            place = f"pin {name} {of.pinned_at}"
            page = None if after is None else from_token(after, place)
            view = self._view_of_kept(kept)
            wanted = Wanted(last, limit, tuple(kept.schema.names))
            table, following = fetch_records(
                self._engine, view, kept.asked.selection, wanted, after=page
            )
            table = table.cast(kept.schema)
            if last is None and limit is None and after is None:
                _check(of, table)
            meta = told([view], table, began)
            meta["pin"] = {"name": name, "rows": of.rows, "hash": of.hash, "commit": of.commit}
            return Answer(table, meta, to_token(following, place) if following else None)

    def _view_of_kept(self, kept: Kept) -> View:
        asked = kept.asked
        return self._view_of(asked.kind, asked.past, asked.selection, kept.moment.page())

    def verify(self, names: Sequence[str], *, timeout: float | None = None) -> pa.Table:
        """Whether the rows of each pin come back, a row per pin (see `VERDICTS`).

        What cannot be read is a problem of its pin; the others are verified all the same.
        """
        rows = []
        with limited(timeout):
            for dataset in [self.get(name) for name in names]:
                began = time.perf_counter()
                verdict = self._verify(dataset)
                rows.append(verdict | {"seconds": time.perf_counter() - began})
        return pa.Table.from_pylist(rows, schema=VERDICTS)

    def _verify(self, of: Dataset) -> dict[str, Any]:
        told = {"name": of.name, "rows": of.rows, "hash": of.hash}
        try:
            kept = self.open(of.name)
        except Refused as error:
            return {**told, "ok": False, "problem": str(error)}
        try:
            view = self._view_of_kept(kept)
            found = content_of(self._engine, view, kept.asked, kept.moment, kept.schema)
        except (Broken, Refused, Unavailable) as error:
            return {**told, "ok": False, "problem": str(error)}
        verdict = Verdict(Content(of.rows, of.hash, json.loads(of.days)), found)
        return {
            **told,
            "ok": verdict.ok,
            "found_rows": found.rows,
            "found_hash": found.hash,
            "problem": verdict.problem,
        }


def _check(of: Dataset, table: pa.Table) -> None:
    """Raises `Broken` unless the table is the dataset that was pinned."""
    digest = digest_of(table, table.column_names)
    verdict = Verdict(Content(of.rows, of.hash), Content(digest.rows, digest.hexdigest()))
    if verdict.problem is not None:
        raise Broken(
            f"this is not what was pinned: {verdict.problem}",
            place=of.name,
            hint=f"`k2 pin verify {of.name}` tells more; `k2 audit` finds what is missing",
        )


def to_table(pins: Iterable[Dataset]) -> pa.Table:
    """Pins as a table (see `PINS`)."""
    rows = [
        {
            **vars(pin),
            "kind": pin.table,
            "snapshot_id": None if pin.snapshot_id is None else str(pin.snapshot_id),
        }
        for pin in pins
    ]
    return pa.Table.from_pylist(
        [{name: row[name] for name in PINS.names} for row in rows], schema=PINS
    )


def _to_text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
