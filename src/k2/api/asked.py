"""What a request may ask for: the parameters, checked and turned into the query room's words."""

import json
import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from k2.api.edge import too_large
from k2.api.errors import invalid
from k2.errors import BadInput
from k2.query import Condition, Selection
from k2.query.times import parse_date, parse_when

M = TypeVar("M", bound="Asked")

_TIMES: Final = "a time with a zone, a date (midnight where it is traded), or `-15m`"
KNOWN: Final = "Only what was known by then, whenever K2 got it: a time with a zone, or `-15m`"
_DAY: Final = r"[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_HOUR: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_CLOCK: Final = rf"T{_HOUR}(:[0-5][0-9](\.[0-9]{{1,6}})?)?(Z|[+-]{_HOUR})"
_WHEN: Final = rf"^({_DAY}({_CLOCK})?|-[1-9][0-9]{{0,4}}[smhdw])$"


def _divisors(whole: int) -> str:
    return "|".join(str(part) for part in range(1, whole + 1) if whole % part == 0)


_WIDTHS: Final = rf"(({_divisors(86_400)})s|({_divisors(1_440)})m|({_divisors(24)})h|1d)"
_INTERVALS: Final = rf"^{_WIDTHS}$"
_SIZES: Final = r"[1-9][0-9]{0,8}(\.[0-9]{0,3}[1-9])?"
FROM: Final = f"Inclusive: {_TIMES}"
TO: Final = f"Exclusive: {_TIMES}"
Interval = Annotated[
    str,
    Field(
        max_length=16,
        description="Width of a bar: a whole number of s, m or h that divides a day, or 1d",
        examples=["1m"],
    ),
    WithJsonSchema({"type": "string", "pattern": _INTERVALS}),
]
BarInterval = Annotated[
    str,
    Field(
        max_length=32,
        description="Width of a time bar, such as 1m; of others what closes one: how many trades, "
        "what quantity, or what amount of price * quantity",
        examples=["1m"],
    ),
    WithJsonSchema({"type": "string", "pattern": rf"^({_WIDTHS}|{_SIZES})$"}),
]
BarKind = Literal["time", "tick", "volume", "dollar"]


def _flag(value: object) -> object:
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def _whole(value: object) -> object:
    """To JSON, 5.0 is a whole number too."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value


def _exact(value: object) -> object:
    """A decimal from its digits; a JSON number comes as the digits that were sent."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,30})?", value):
        return Decimal(value)
    raise ValueError("must be a decimal number of up to 10 digits before the mark")


Symbol = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="A symbol in its exchange's spelling",
        examples=["BTCUSDT"],
    ),
]
ExchangeName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Name of an exchange", examples=["asx"]),
]
LedgerKind = Annotated[
    str, Field(pattern=r"^[a-z]{1,32}$", description="A kind of record", examples=["trades"])
]
When = Annotated[
    str,
    Field(
        max_length=64,
        examples=["2014-03-11T00:00:00Z", "2014-03-11", "-15m"],
    ),
    # Narrower than what is taken: enough to write requests by.
    WithJsonSchema({"type": "string", "pattern": _WHEN}),
]
AsOf = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        description="The data as K2 held it then: a time with a zone, a tag, or a snapshot id",
        examples=["2026-11-20T17:00:00Z"],
    ),
]
Instant = Annotated[
    str,
    Field(max_length=64, examples=["2026-11-20T17:00:00Z"]),
    WithJsonSchema({"type": "string", "pattern": f"^{_DAY}{_CLOCK}$"}),
]
Word = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=0, lt=2**63)]
Day = Annotated[
    str,
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2014-03-11"]}),
]
Flag = Annotated[bool, BeforeValidator(_flag), WithJsonSchema({"type": "boolean"})]
Exact = Annotated[
    Decimal,
    BeforeValidator(_exact),
    Field(ge=0, lt=10**10),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,30})?$"},
                {"type": "number", "minimum": 0, "maximum": 9_999_999_999},
            ]
        }
    ),
]
SessionName = Literal["all", "regular"]
Adjustment = Annotated[
    Literal["none", "splits", "all"],
    Field(description="Prices of other days as they compare with today's, by what"),
]
Metric = Literal["vwap", "twap", "ohlcv", "volume_profile", "trade_count"]
PinName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="Name of a pin",
        examples=["eur-2026-q3"],
    ),
]
FormatName = Literal["json", "ndjson", "csv", "arrow", "parquet"]
After = Annotated[
    str,
    Field(max_length=4096, description="`next` of the page before: same state, next rows"),
]


class Asked(BaseModel):
    """Parameters of one endpoint; a name that is not among them is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FormatAsked(Asked):
    """The one parameter that every table's endpoint takes."""

    format: FormatName | None = Field(None, description="Wins over the `Accept` header")


class RecordsAsked(FormatAsked):
    """Parameters of GET /v1/quotes and /v1/corrections."""

    symbol: Symbol | None = None
    exchange: ExchangeName | None = None
    start_time: When | None = Field(None, description=FROM)
    end_time: When | None = Field(None, description=TO)
    limit: int = Field(100, ge=1, le=10_000, description="Rows of a page")
    last: int | None = Field(
        None, ge=1, le=10_000, description="The newest so many instead of pages from the oldest"
    )
    after: After | None = None
    as_of: AsOf | None = None
    as_known_at: When | None = Field(None, description=KNOWN)
    certificate: Flag = Field(False, description="With a certificate of these rows in `meta`")


class TradesAsked(RecordsAsked):
    """Parameters of GET /v1/trades."""

    history: Flag = Field(False, description="As first reported, and what became of each")


class SymbolsAsked(FormatAsked):
    """Parameters of GET /v1/symbols."""

    exchange: ExchangeName | None = None
    as_of: AsOf | None = None


class SummaryAsked(SymbolsAsked):
    """Parameters of GET /v1/summary/{symbol}/{date}."""

    as_known_at: When | None = Field(None, description=KNOWN)


class StatsAsked(FormatAsked):
    """Parameters of GET /v1/stats."""

    as_of: AsOf | None = None


class SnapshotsAsked(FormatAsked):
    """Parameters of GET /v1/snapshots."""

    table: str = Field("trades", pattern=r"^[a-z_]{1,64}$", description="Name of a table")
    limit: int = Field(100, ge=1, le=10_000, description="The newest so many")


class LedgerAsked(FormatAsked):
    """Parameters of a ledger."""

    exchange: ExchangeName | None = None
    kind: LedgerKind | None = None
    limit: int = Field(1_000, ge=1, le=10_000, description="The newest so many")


class EntriesAsked(LedgerAsked):
    """Parameters of a ledger whose entries are of one symbol each."""

    symbol: Symbol | None = None


class GapsAsked(EntriesAsked):
    """Parameters of GET /v1/gaps."""

    cause: str | None = Field(None, max_length=64, description="Why, as the ledger calls it")
    state: Literal["open", "filling", "filled", "given up", "retired"] | None = Field(
        None, description="What has become of it"
    )


class RecentAsked(FormatAsked):
    """Parameters of GET /v1/trades/recent."""

    symbol: Symbol | None = None
    exchange: ExchangeName | None = None
    window_minutes: int = Field(15, ge=1, le=1440, description="How far back from now")
    limit: int = Field(1_000, ge=1, le=10_000, description="The newest so many of the window")


class BarsAsked(FormatAsked):
    """Parameters of GET /v1/bars/{interval}."""

    symbol: Symbol
    exchange: ExchangeName | None = None
    start_time: When | None = Field(None, description=FROM)
    end_time: When | None = Field(None, description=TO)
    kind: BarKind = Field("time", description="What closes a bar")
    all_trades: Flag = Field(False, description="Take in trades that form no price")
    fill: Flag = Field(
        False, description="Show intervals without trades too, and whether they were empty"
    )
    consolidated: Flag = Field(False, description="One bar over all exchanges")
    session: SessionName = Field("all", description="Which trades: of declared sessions, or all")
    adjusted: Adjustment = "none"
    last: int = Field(500, ge=1, le=100_000, description="The newest so many bars per symbol")
    as_of: AsOf | None = None
    as_known_at: When | None = Field(None, description=KNOWN)


class BarsBatchAsked(Asked):
    """Body of POST /v1/bars/batch."""

    symbols: list[Symbol] = Field(min_length=1, max_length=100)
    interval: BarInterval
    exchanges: list[ExchangeName] = Field([], max_length=100)
    start_time: When | None = Field(None, description=FROM)
    end_time: When | None = Field(None, description=TO)
    kind: BarKind = "time"
    all_trades: bool = False
    fill: bool = False
    consolidated: bool = False
    session: SessionName = "all"
    adjusted: Adjustment = "none"
    last: Whole = Field(100, ge=1, le=100_000, description="The newest so many bars per symbol")
    as_of: AsOf | None = None
    as_known_at: When | None = Field(None, description=KNOWN)
    format: FormatName | None = None


class AggregationsAsked(Asked):
    """Body of POST /v1/aggregations."""

    symbols: list[Symbol] = Field(min_length=1, max_length=50)
    metrics: list[Metric] = Field(min_length=1, max_length=5)
    interval: Interval
    exchanges: list[ExchangeName] = Field([], max_length=100)
    start_time: When | None = Field(None, description=FROM)
    end_time: When | None = Field(None, description=TO)
    bin_size: Exact | None = Field(
        None,
        description="Width of a price level of `volume_profile`; without it, each price is one",
    )
    all_trades: bool = Field(False, description="Take in trades that form no price")
    session: SessionName = Field("all", description="Which trades: of declared sessions, or all")
    as_of: AsOf | None = None
    as_known_at: When | None = Field(None, description=KNOWN)
    format: FormatName | None = None


class BboAsked(FormatAsked):
    """Parameters of GET /v1/bbo."""

    symbol: Symbol
    exchange: list[ExchangeName] = Field(
        [], max_length=100, description="Of these exchanges alone; may be repeated"
    )
    start_time: When | None = Field(None, description=FROM)
    end_time: When | None = Field(None, description=TO)
    last: int = Field(500, ge=1, le=100_000, description="The newest so many")
    as_of: AsOf | None = None
    as_known_at: When | None = Field(None, description=KNOWN)


class PageAsked(Asked):
    """What every POSTed query for pages of records takes."""

    symbols: list[Symbol] = Field([], max_length=100)
    exchanges: list[ExchangeName] = Field([], max_length=100)
    start_time: When | None = Field(None, description=FROM)
    end_time: When | None = Field(None, description=TO)
    fields: list[Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]] = Field(
        [], max_length=64, description="Columns to give back; all of them where empty"
    )
    limit: Whole = Field(1_000, ge=1, le=100_000, description="Rows of a page")
    after: After | None = None
    as_of: AsOf | None = None
    as_known_at: When | None = Field(None, description=KNOWN)
    format: FormatName | None = None


class QueryAsked(PageAsked):
    """Body of POST /v1/trades/query and /v1/quotes/query. Filters apply before the limit."""

    min_price: Exact | None = Field(None, description="Of quotes: of the bid")
    max_price: Exact | None = Field(None, description="Of quotes: of the ask")
    min_quantity: Exact | None = Field(None, description="Of quotes: of both sides")
    history: bool = Field(False, description="Trades as first reported, and what became of each")
    certificate: bool = Field(False, description="With a certificate of these rows in `meta`")
    pin: PinName | None = Field(
        None, description="The rows of a pin, and nothing besides but `limit` and `after`"
    )


class SnapshotQueryAsked(QueryAsked):
    """Body of POST /v1/snapshots/{id}/query."""

    table: Literal["trades", "quotes"] = "trades"


def selection(
    now: Callable[[], datetime],
    *,
    symbols: list[str],
    exchanges: list[str],
    start_time: str | None,
    end_time: str | None,
    where: tuple[Condition, ...] = (),
) -> Selection:
    """What the query room selects by, its times resolved against `now`."""
    return Selection(
        symbols=tuple(dict.fromkeys(symbols)),
        exchanges=tuple(dict.fromkeys(exchanges)),
        start=_parsed("start_time", start_time, now),
        end=_parsed("end_time", end_time, now),
        where=where,
    )


def conditions(asked: QueryAsked, kind: str) -> tuple[Condition, ...]:
    """The filters of a query on this kind of record.

    Bounds finer than stored values can be (8 decimals) are moved to the next stored value inside.
    """
    low, high, quantities = {
        "trades": ("price", "price", ["quantity"]),
        "quotes": ("bid_price", "ask_price", ["bid_quantity", "ask_quantity"]),
    }[kind]
    found = []
    if asked.min_price is not None:
        found.append(Condition(low, ">=", _stored(asked.min_price, ROUND_CEILING)))
    if asked.max_price is not None:
        found.append(Condition(high, "<=", _stored(asked.max_price, ROUND_FLOOR)))
    if asked.min_quantity is not None:
        least = _stored(asked.min_quantity, ROUND_CEILING)
        found += [Condition(name, ">=", least) for name in quantities]
    return tuple(found)


def need_json(request: Request, what: str) -> None:
    """Raises `BadInput` unless the body says that it is JSON.

    A page elsewhere cannot have a browser send this type here without asking first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadInput(
            f"{what} are taken as JSON alone",
            place="header Content-Type",
            found=kind[:80] or None,
            expected="application/json",
        )


async def body(request: Request, model: type[M]) -> M:
    """The request's JSON body as `model`; numbers keep their digits.

    Raises `TooLarge` as soon as more bytes came than the server takes, `BadInput` for what is no
    JSON or does not fit.
    """
    most = request.app.state.desk.workers.limits.body_bytes
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > most:
            raise too_large(most)
    try:
        given = json.loads(raw.decode("utf-8"), parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            "the body is no JSON", place="body", found=str(error)[:120], expected="a JSON object"
        ) from error
    try:
        return model.model_validate(given, strict=True)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False), "body") from error


def json_body(model: type[Asked]) -> dict[str, Any]:
    """The OpenAPI description of a body that `body` reads."""
    found = model.model_json_schema()
    # References would be looked for at the root of the whole description.
    schema = _inlined(found, found.get("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(shape: Any, definitions: dict[str, Any]) -> Any:
    """The JSON schema with what it refers to in its place."""
    if isinstance(shape, list):
        return [_inlined(one, definitions) for one in shape]
    if not isinstance(shape, dict):
        return shape
    if "$ref" in shape:
        return _inlined(definitions[shape["$ref"].rpartition("/")[2]], definitions)
    return {k: _inlined(one, definitions) for k, one in shape.items() if k != "$defs"}


def day(text: str) -> date:
    """The date in a path. Raises `BadInput` for what is none."""
    try:
        return parse_date(text)
    except BadInput as error:
        raise BadInput(
            error.message, place="path.date", found=text[:80], expected=error.expected
        ) from error


def _parsed(name: str, text: str | None, now: Callable[[], datetime]) -> datetime | date | None:
    if text is None:
        return None
    try:
        return parse_when(text, now())
    except BadInput as error:
        raise BadInput(
            error.message,
            place=name,
            found=error.found or text[:80],
            expected=error.expected,
            hint=error.hint,
        ) from error


def _stored(value: Decimal, rounding: str) -> str:
    return f"{value.quantize(Decimal('1e-8'), rounding):f}"
