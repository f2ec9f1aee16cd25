"""Corrections: GET /v1/corrections lists them, POST /v1/corrections brings them in.

What is POSTed goes into the log as a feed's records do, and the same code decides it: whoever sends
the same once more changes nothing, and gets the same answer.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.api.records import listed
from k2.errors import BadInput, Broken, Refused
from k2.model import latest, plain_schema, validate
from k2.query import Answer, Reader, Selection
from k2.query.times import parse_instant

router = APIRouter(tags=["corrections"])

_SOURCE: Final = "api"
_NUMBERED: Final = ("exchange", "id_space", "symbol", "source_sequence")
_CONTENT: Final = tuple(n for n in latest("corrections").arrow.names if n != "ingestion_timestamp")
_TIMES: Final = ("timestamp", "target_timestamp", "source_received_timestamp")
_MICROSECOND: Final = timedelta(microseconds=1)


class CorrectionGiven(asked.Asked):
    """One correction: of the trade with an id, or of one without, by its place in the log."""

    symbol: asked.Symbol
    exchange: asked.ExchangeName
    timestamp: asked.Instant = Field(description="When the venue corrected")
    action: Literal["BUST", "CANCEL", "CORRECT"]
    trade_id: asked.Word | None = None
    id_space: str = Field("", max_length=256)
    target_log_id: asked.Word | None = None
    target_partition: Annotated[asked.Whole, Field(ge=0, lt=2**31)] | None = None
    target_offset: asked.Count | None = None
    target_timestamp: asked.Instant | None = Field(
        None, description="When the trade was, if not on the day of its correction"
    )
    price: asked.Exact | None = Field(None, description="What CORRECT makes it")
    quantity: asked.Exact | None = Field(None, description="What CORRECT makes it")
    reason: asked.Word | None = None
    source_sequence: asked.Count | None = Field(
        None, description="The venue's own number of this correction, which then is its identity"
    )
    source_received_timestamp: asked.Instant | None = Field(
        None, description="When it was known, if not at once"
    )


class CorrectionsGiven(asked.Asked):
    """Body of POST /v1/corrections."""

    corrections: list[CorrectionGiven] = Field(min_length=1, max_length=1_000)


@router.get(
    "/v1/corrections", responses=shapes.table("Correction"), summary="Corrections of trades"
)
async def corrections(request: Request, query: Annotated[asked.RecordsAsked, Query()]) -> Response:
    """Busts, cancels and changes by symbol, exchange and the time that the venue made them.

    `has_target` tells whether the trade is there that it is about.
    """
    return await listed(request, "corrections", query)


@router.post(
    "/v1/corrections",
    responses=shapes.table("Correction"),
    openapi_extra=asked.json_body(CorrectionsGiven),
    summary="Correct trades",
)
async def correct(request: Request) -> Response:
    """Bring in corrections, all of them or none; answers with each as K2 holds it.

    `meta.duplicates` tells how many were there before: to send them once more changes nothing.
    """
    asked.need_json(request, "corrections")
    given = (await asked.body(request, CorrectionsGiven)).corrections
    desk = answers.desk(request)
    entry = desk.entry
    if entry is None:
        raise Refused("this server takes no corrections", hint="`k2 serve` runs one that does")
    now = desk.clock()
    rows = [_row(at, each, now) for at, each in enumerate(given)]

    def work(reader: Reader, seconds: float) -> Answer:
        _append(entry, reader, rows)
        return _held(reader, rows, now, seconds)

    return await answers.answer(request, work, asked=rows)


def _row(at: int, given: CorrectionGiven, now: datetime) -> dict[str, Any]:
    """The correction as a record; raises `BadInput` for a value that no record can hold."""
    row: dict[str, Any] = {
        **given.model_dump(),
        "ingestion_timestamp": now,
        "source": _SOURCE,
        "timestamp_nanos": 0,
        "occurrence": 0 if given.source_sequence is None else None,
        "vendor_data": None,
    }
    for name in _TIMES:
        if row[name] is not None:
            try:
                row[name] = parse_instant(row[name])
            except BadInput as error:
                raise _placed(error, f"body.corrections.{at}.{name}") from error
    for name in ("price", "quantity"):
        value: Decimal | None = row[name]
        if value is not None and value != value.quantize(Decimal("1e-8")):
            raise BadInput(
                f"{name} has more than 8 decimals",
                place=f"body.corrections.{at}.{name}",
                found=str(value),
            )
    return row


def _placed(error: BadInput, place: str) -> BadInput:
    """The error, with the place at which a request has it."""
    return BadInput(error.message, place=place, expected=error.expected, hint=error.hint)


def _append(entry: answers.Entry, reader: Reader, rows: Sequence[dict[str, Any]]) -> None:
    """Append the rows, once all of them can be."""
    tables = []
    for name in dict.fromkeys(row["exchange"] for row in rows):
        exchange = reader.exchange(name)
        places = [at for at, row in enumerate(rows) if row["exchange"] == name]
        table = _to_table([rows[at] for at in places])
        failures = validate("corrections", table, exchange, entry.skew)
        if failures is not None:
            column, value, wrong = (
                of[0].as_py() for of in (failures.columns, failures.values, failures.wrongs)
            )
            raise BadInput(
                f"{column} {wrong}",
                place=f"body.corrections.{places[failures.rows[0]]}.{column}",
                found=value or None,
            )
        tables.append((exchange, table))
    for exchange, table in tables:
        entry.producer.send(exchange, "corrections", table)


def _to_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    schema = latest("corrections").arrow
    return pa.Table.from_pylist(list(rows), schema=plain_schema(schema)).cast(schema)


def _held(reader: Reader, rows: Sequence[dict[str, Any]], now: datetime, seconds: float) -> Answer:
    """The corrections as K2 holds them, in the order of the request."""
    times = [row["timestamp"] for row in rows]
    answer = reader.records(
        "corrections",
        Selection(
            tuple(dict.fromkeys(row["symbol"] for row in rows)),
            tuple(dict.fromkeys(row["exchange"] for row in rows)),
            min(times),
            max(times) + _MICROSECOND,
        ),
        timeout=seconds,
    )
    there = {_identity(held): at for at, held in enumerate(answer.table.to_pylist())}
    places = [there.get(_identity(row)) for row in rows]
    if None in places:
        raise Broken(
            "a correction was appended and is not there",
            place=f"body.corrections.{places.index(None)}",
            hint="`k2 rejected` shows what is wrong with it",
        )
    table = answer.table.take(pa.array(places, pa.int64()))
    before = sum(when != now for when in table["ingestion_timestamp"].to_pylist())
    meta = {**answer.meta, "rows": table.num_rows, "duplicates": before}
    return Answer(table, meta)


def _identity(row: dict[str, Any]) -> tuple[object, ...]:
    """What makes a correction the one it is: its number, or its content."""
    by_content = row["occurrence"] is not None
    return tuple(row[name] for name in (_CONTENT if by_content else _NUMBERED))
