"""What answers look like, for OpenAPI: derived from the model's columns, never written twice."""

from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Any, Final

import pyarrow as pa

from k2.encode import FORMATS
from k2.ingest import GAP_STATE
from k2.lake import definition
from k2.model import latest, plain_type
from k2.query import Replayed, Selection
from k2.query.diff import ADDED
from k2.query.estimates import ESTIMATE
from k2.query.join import JOINED_KINDS, joined_columns
from k2.query.markouts import MARKOUTS
from k2.query.pins import PINS, VERDICTS
from k2.query.replay import KINDS
from k2.query.spreads import SPREADS

Shape = dict[str, Any]
Responses = dict[int | str, Shape]

DECIMAL: Final[Shape] = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]*[1-9])?$"}
TIME: Final[Shape] = {"type": "string", "format": "date-time"}
COUNT: Final[Shape] = {"type": "integer", "minimum": 0}
TEXT: Final[Shape] = {"type": "string"}
LEVEL: Final[Shape] = {
    "type": "string",
    "enum": ["NORMAL", "SOFT", "GRACEFUL", "AGGRESSIVE", "CIRCUIT_BREAK"],
}


def of_columns(schema: pa.Schema) -> Shape:
    """The JSON object that a row with these columns becomes."""
    return {
        "type": "object",
        "properties": {field.name: _of_column(field) for field in schema},
    }


def _of_column(field: pa.Field) -> Shape:
    kind = plain_type(field.type)
    if pa.types.is_decimal(kind):
        shape = DECIMAL
    elif pa.types.is_timestamp(kind):
        shape = TIME
    elif pa.types.is_date(kind):
        shape = {"type": "string", "format": "date"}
    elif pa.types.is_boolean(kind):
        shape = {"type": "boolean"}
    elif pa.types.is_integer(kind):
        shape = {"type": "integer"}
    elif pa.types.is_floating(kind):
        shape = {"type": "number"}
    else:
        shape = TEXT
    return _nullable(shape) if field.nullable else dict(shape)


def _nullable(shape: Mapping[str, Any]) -> Shape:
    return {**shape, "type": [shape["type"], "null"]}


def _object(properties: Mapping[str, Shape], optional: Collection[str] = ()) -> Shape:
    found: Shape = {"type": "object", "properties": dict(properties)}
    found["required"] = [name for name in properties if name not in optional]
    return found


_VALUES: Final = {
    "open": DECIMAL,
    "high": DECIMAL,
    "low": DECIMAL,
    "close": DECIMAL,
    "volume": DECIMAL,
    "trade_count": COUNT,
    "vwap": DECIMAL,
}
_NULLABLE_VALUES: Final = {name: _nullable(shape) for name, shape in _VALUES.items()}


def _joined() -> Iterator[pa.Field]:
    """Every column that a join of any two kinds may have; `fields` may leave any of them out."""
    found: dict[str, pa.Field] = {}
    for left, right in product(JOINED_KINDS, repeat=2):
        for name, column in joined_columns(left, right).items():
            if column.own:
                found.setdefault(name, column.field.with_name(name).with_nullable(True))
    yield from found.values()


SCHEMAS: Final[Mapping[str, Shape]] = {
    "Trade": of_columns(latest("trades").arrow),
    "Quote": of_columns(latest("quotes").arrow),
    "Correction": of_columns(
        latest("corrections").arrow.append(pa.field("has_target", pa.bool_(), nullable=False))
    ),
    "Joined": of_columns(pa.schema(_joined())),
    "Spread": of_columns(SPREADS),
    "Markout": of_columns(MARKOUTS),
    "Estimate": of_columns(ESTIMATE),
    "Bar": _object(
        {
            "symbol": TEXT,
            "exchange": TEXT,
            "start": TIME,
            **_NULLABLE_VALUES,
            "complete": {"type": "boolean"},
            "end": {**TIME, "description": "Of kinds other than time"},
            "state": {
                "type": "string",
                "enum": ["traded", "empty", "unknown"],
                "description": "With `fill`",
            },
            "exchanges": {**_nullable(TEXT), "description": "With `consolidated`"},
        },
        optional=("end", "state", "exchanges"),
    ),
    "Aggregation": _object(
        {
            "symbol": TEXT,
            "exchange": TEXT,
            "start": TIME,
            "complete": {"type": "boolean"},
            **_VALUES,
            "twap": DECIMAL,
            "volume_profile": {
                "type": "array",
                "items": _object({"price": DECIMAL, "volume": DECIMAL, "trade_count": COUNT}),
            },
        },
        optional=(*_VALUES, "twap", "volume_profile"),
    ),
    "BestQuote": _object(
        {
            "symbol": TEXT,
            "timestamp": TIME,
            **{
                f"{side}_{name}": _nullable(shape)
                for side in ("bid", "ask")
                for name, shape in (
                    ("price", DECIMAL),
                    ("quantity", DECIMAL),
                    ("exchanges", TEXT),
                )
            },
        }
    ),
    "Summary": _object(
        {
            "symbol": TEXT,
            "exchange": TEXT,
            "date": {"type": "string", "format": "date"},
            **_NULLABLE_VALUES,
        }
    ),
    "Symbol": _object(
        {
            "symbol": TEXT,
            "exchange": TEXT,
            "asset_class": _nullable(TEXT),
            "trades": COUNT,
            "quotes": COUNT,
            "first_timestamp": _nullable(TIME),
            "last_timestamp": _nullable(TIME),
        }
    ),
    "Stats": _object(
        {
            "table": TEXT,
            "rows": COUNT,
            "files": COUNT,
            "bytes": COUNT,
            "commit": COUNT,
            "snapshot_id": _nullable(TEXT),
            "committed_at": _nullable(TIME),
            "first_timestamp": _nullable(TIME),
            "last_timestamp": _nullable(TIME),
            "tail_rows": COUNT,
            "lag_messages": _nullable(COUNT),
        }
    ),
    "Snapshot": _object(
        {
            "commit": COUNT,
            "snapshot_id": _nullable(TEXT),
            "committed_at": _nullable(TIME),
            "operation": _nullable(TEXT),
            "rows": _nullable(COUNT),
            "duplicates": _nullable(COUNT),
            "rejected": _nullable(COUNT),
            "tags": _nullable(TEXT),
        }
    ),
    "Rejected": of_columns(definition("rejected").arrow),
    "Duplicate": of_columns(definition("duplicates").arrow),
    "Shed": of_columns(definition("shed").arrow),
    "Retired": of_columns(definition("retired").arrow),
    "Gap": of_columns(pa.schema([*definition("gaps").arrow, *GAP_STATE])),
    "Added": of_columns(ADDED),
    "Pin": of_columns(PINS),
    "PinVerdict": of_columns(VERDICTS),
    "WriterLevel": _object(
        {
            "writer": TEXT,
            "level": LEVEL,
            "number": COUNT,
            "since": TIME,
            "history": {
                "type": "array",
                "items": _object({"at": TEXT, "before": TEXT, "after": TEXT, "reason": TEXT}),
            },
        }
    ),
    "Replayed": of_columns(Replayed(KINDS, Selection()).columns),
    "Record": {
        "anyOf": [{"$ref": "#/components/schemas/Trade"}, {"$ref": "#/components/schemas/Quote"}]
    },
    "Health": _object({"status": {"type": "string", "enum": ["ok"]}}),
    "Status": _object(
        {
            "records_per_second": _nullable({"type": "number"}),
            "lag_messages": COUNT,
            "freshness_seconds": _nullable({"type": "number"}),
            "level": LEVEL,
            "shed_waiting": COUNT,
            "rows": COUNT,
            "tail_rows": COUNT,
            "snapshot": COUNT,
            "snapshot_id": _nullable(TEXT),
            "committed_at": _nullable(TIME),
            "audit": _object(
                {
                    "state": {"type": "string", "enum": ["ok", "differs", "failed", "never"]},
                    "at": _nullable(TIME),
                    "seconds": _nullable({"type": "number"}),
                }
            ),
        }
    ),
    "AuditedPartition": _object(
        {
            "topic": TEXT,
            "partition": COUNT,
            "start_offset": COUNT,
            "end_offset": COUNT,
            "committed": COUNT,
            "duplicate": COUNT,
            "rejected": COUNT,
            "retired": COUNT,
            "shed": COUNT,
            "absent": COUNT,
            "lost": COUNT,
            "in_flight": COUNT,
            "first_wrong_offset": _nullable(COUNT),
            "problem": _nullable(TEXT),
        }
    ),
    "Error": _object(
        {
            "success": {"type": "boolean", "enum": [False]},
            "error": _object(
                {
                    "code": {
                        "type": "string",
                        "description": "The kind of error; a status tells the same",
                    },
                    "message": {"type": "string", "description": "What is wrong"},
                    "place": {**_nullable(TEXT), "description": "Where: parameter, field, topic"},
                    "found": {**_nullable(TEXT), "description": "What stands there"},
                    "expected": {**_nullable(TEXT), "description": "What should stand there"},
                    "hint": {**_nullable(TEXT), "description": "What to do about it"},
                }
            ),
            "meta": {"type": "object"},
        }
    ),
}
"""The shapes that endpoints refer to, by name."""


def _error(description: str, **headers: str) -> Shape:
    found: Shape = {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    if headers:
        found["headers"] = {
            name.replace("_", "-"): {"description": text, "schema": TEXT}
            for name, text in headers.items()
        }
    return found


_RETRY: Final = "Seconds to wait before trying again"
ERRORS: Final[Responses] = {
    403: _error("`FORBIDDEN`: not allowed"),
    404: _error("`NOT_FOUND`: there is no such thing"),
    405: _error("`METHOD_NOT_ALLOWED`: see the `Allow` header"),
    413: _error("`PAYLOAD_TOO_LARGE`: the request's body is too large"),
    422: _error("`VALIDATION_ERROR`: something asked for cannot be; `place` names it"),
    429: _error("`RATE_LIMITED`: too many requests wait", Retry_After=_RETRY),
    500: _error("`BROKEN`: a fault of K2; its log has the cause"),
    503: _error("`UNAVAILABLE`: too slow, or something is away", Retry_After=_RETRY),
}
"""The error responses that every endpoint may give."""


def table(row: str) -> Responses:
    """The responses of an endpoint that answers with rows of this shape, in any format."""
    content: Shape = {
        kind.media_type.split(";")[0]: {"schema": {"type": "string"}} for kind in FORMATS.values()
    }
    for name in ("arrow", "parquet"):
        content[FORMATS[name].media_type]["schema"] = {"type": "string", "format": "binary"}
    content["application/json"] = {"schema": _envelope(row)}
    ok: Shape = {
        "description": "The rows, in the asked format",
        "content": content,
        "headers": {
            "ETag": {
                "description": "Changes with snapshot and log offsets; give it back as "
                "`If-None-Match`",
                "schema": TEXT,
            },
            "K2-Next": {
                "description": "Token of the next page, if there is one",
                "schema": TEXT,
            },
        },
    }
    return {200: ok, 304: {"description": "Nothing changed since this ETag"}, **ERRORS}


def export(row: str) -> Responses:
    """The responses of an endpoint that gives all rows of this shape, in any format."""
    found = table(row)
    ok = {"description": "All rows, in the asked format", "content": found[200]["content"]}
    return {**found, 200: ok}


def stream() -> Responses:
    """The responses of an endpoint that answers with events until its client leaves."""
    content = {
        "text/event-stream": {"schema": TEXT},
        FORMATS["arrow"].media_type: {"schema": {"type": "string", "format": "binary"}},
    }
    ok: Shape = {"description": "Events, as they happen", "content": content}
    return {200: ok, 204: {"description": "There is nothing more at this position"}, **ERRORS}


def plain(row: str) -> Responses:
    """The responses of an endpoint that answers in JSON alone."""
    content = {"application/json": {"schema": _envelope(row)}}
    return {200: {"description": "As asked", "content": content}, **ERRORS}


def _envelope(row: str) -> Shape:
    return _object(
        {
            "success": {"type": "boolean", "enum": [True]},
            "data": {"type": "array", "items": {"$ref": f"#/components/schemas/{row}"}},
            "meta": {"type": "object"},
            "pagination": _object(
                {"limit": _nullable({"type": "integer"}), "next": _nullable(TEXT)}
            ),
        }
    )
