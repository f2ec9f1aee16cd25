"""Certificates: what an answer was made of, and its rows' hash, to be found the same again later.

Comes in: an answer and its view. Goes out: a JSON-ready certificate; or, from one, whether the same
rows come back, long after compaction and expiry, and whether a file holds the rows that it says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from k2.errors import BadInput
from k2.ingest import Level
from k2.query.again import Content, Verdict, ViewOf, check_version, content_of
from k2.query.digest import DEFINITION, digest_of, fields_of, to_schema
from k2.query.gaps import Gap
from k2.query.port import Engine
from k2.query.question import (
    Moment,
    Question,
    moment_from_json,
    moment_to_json,
    question_from_json,
    question_to_json,
)
from k2.query.state import State
from k2.query.view import View

CERTIFICATE: Final = "certificate"
VERSION: Final = 1
"""Of what a certificate looks like."""

_MOST_LISTED: Final = 1_000
"""Gaps and shed ranges that a certificate lists; of more it says how many there are."""


@dataclass(frozen=True)
class Verified:
    """What came of a certificate: `again` tells whether the same rows come back, `kept` whether the
    rows that came with it are those that it is of (None: it came alone).
    """

    certificate: Mapping[str, Any]
    again: Verdict
    kept: Verdict | None

    @property
    def ok(self) -> bool:
        """Whether everything is as it was."""
        return self.again.ok and (self.kept is None or self.kept.ok)


class Evidence:
    """Makes certificates and verifies them. Any thread may ask."""

    def __init__(self, state: State, engine: Engine, view_of: ViewOf) -> None:
        self._state = state
        self._engine = engine
        self._view_of = view_of

    def certify(
        self, asked: Question, view: View, table: pa.Table, gaps: Sequence[Gap]
    ) -> dict[str, Any]:
        """The certificate of the answer `table` over the view.

        Raises `BadInput` for columns that cannot be hashed.
        """
        digest = digest_of(table, table.column_names)
        shed = self._state.shed(view.table, asked.selection.exchanges)
        return {
            CERTIFICATE: VERSION,
            "kind": asked.kind,
            "rows": digest.rows,
            "hash": digest.hexdigest(),
            "hash_definition": DEFINITION,
            "columns": fields_of(table.schema),
            "question": question_to_json(asked),
            "state": moment_to_json(moment_of(view)),
            "commits": {
                each.table: self._state.committed(each.table, each.pinned.sequence).to_json()
                for each in (view, view.corrections)
                if each is not None
            },
            "offsets": {
                topic: {str(partition): end for partition, end in sorted(of.items())}
                for topic, of in sorted(view.seen.items())
            },
            "gaps": [_gap(gap) for gap in gaps[:_MOST_LISTED]],
            "gap_count": len(gaps),
            "shed": [
                {
                    "topic": each.topic,
                    "partition": each.partition,
                    "first_offset": each.first_offset,
                    "end_offset": each.end_offset,
                    "records": each.records,
                }
                for each in shed[:_MOST_LISTED]
            ],
            "shed_records": sum(each.records for each in shed),
            "writers": [
                {"writer": each.writer, "level": each.level.name}
                for each in self._state.levels()
                if each.level is not Level.NORMAL
            ],
            "made_at": self._state.now().isoformat(),
        }

    def verify(self, document: object) -> Verified:
        """Ask again what the certificate is of, and compare. `document` is a certificate, or an
        answer in JSON that has one in `meta`: then its `data` are compared too.

        Raises `BadInput` for what is neither, `Refused` for a certificate of a newer version.
        """
        told, data = _opened(document)
        check_version(told[CERTIFICATE], VERSION, CERTIFICATE)
        check_version(told.get("hash_definition"), DEFINITION, "hash_definition")
        kind, schema = str(told.get("kind")), to_schema(told.get("columns") or ())
        asked = question_from_json(kind, told.get("question") or {})
        moment = moment_from_json(told.get("state") or {})
        wanted = Content(_rows_of(told), str(told.get("hash")))
        kept = None if data is None else Verdict(wanted, _content_of_rows(data, schema))
        view = self._view_of(kind, asked.past, asked.selection, moment.page())
        found = content_of(self._engine, view, asked, moment, schema)
        return Verified(told, Verdict(wanted, found), kept)


def moment_of(view: View) -> Moment:
    """The state that a view is of."""
    beside = view.corrections
    if beside is None:
        return Moment(view.pinned, known_at=view.known_at)
    return Moment(view.pinned, beside.pinned, view.known_at)


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "symbol": gap.symbol,
        "exchange": gap.exchange,
        "from": None if gap.start is None else gap.start.isoformat(),
        "to": None if gap.end is None else gap.end.isoformat(),
        "missing": gap.missing,
        "cause": gap.cause,
    }


def _opened(document: object) -> tuple[Mapping[str, Any], Sequence[Any] | None]:
    """The certificate, and the rows that came with it."""
    if isinstance(document, Mapping):
        if CERTIFICATE in document:
            return document, None
        meta, data = document.get("meta"), document.get("data")
        told = meta.get(CERTIFICATE) if isinstance(meta, Mapping) else None
        if isinstance(told, Mapping) and CERTIFICATE in told and isinstance(data, list):
            return told, data
    raise BadInput(
        "this is no certificate, and no answer that has one",
        expected="what `k2 trades … --certificate --json` writes, or `meta.certificate` of it",
    )


def _rows_of(told: Mapping[str, Any]) -> int:
    rows = told.get("rows")
    if not isinstance(rows, int):
        raise BadInput("a certificate says how many rows it is of", place="rows", found=str(rows))
    return rows


def _content_of_rows(data: Sequence[Any], schema: pa.Schema) -> Content:
    """What rows are that came as JSON. Raises `BadInput` where they cannot be of these columns."""
    columns = []
    for field in schema:
        values = [row.get(field.name) if isinstance(row, Mapping) else None for row in data]
        try:
            columns.append(_to_column(values, field.type))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise BadInput(
                f"the answer's rows are not those of its certificate: {error}",
                place=field.name,
                expected=str(field.type),
            ) from error
    digest = digest_of(pa.table(columns, schema=schema), schema.names)
    return Content(digest.rows, digest.hexdigest())


def _to_column(values: list[Any], kind: pa.DataType) -> pa.Array:
    # In JSON, decimals, times and dates are text.
    if pa.types.is_decimal(kind) or pa.types.is_temporal(kind):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)
