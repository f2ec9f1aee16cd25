"""What a file's columns mean: a TOML mapping, parsed and checked before a line is read.

Comes in: a built-in name (`asx`) or the path of a `.toml`. Goes out: `FileMapping`, in which every
key is known, every field that the kind needs is filled, and every column that is used is declared.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Final

import pyarrow as pa

from k2.errors import BadInput
from k2.feeds.mapped.times import check_format
from k2.feeds.mapped.toml import Section
from k2.model import ASSET_CLASSES, Exchange, latest

NUMBERED: Final = ("trades", "quotes")
"""Kinds of records that have an id which may count up."""
KINDS: Final = ("trades", "quotes", "corrections", "instruments", "dividends", "splits")
"""The kinds of record that a file may hold."""

FILLED_BY_K2: Final = frozenset(
    {
        "asset_class",
        "exchange",
        "id_space",
        "ingestion_timestamp",
        "occurrence",
        "price_forming",
        "source",
        "timestamp_nanos",
        "vendor_data",
    }
)
"""Fields of the model that a mapping does not name under `fields`."""

SIDES: Final = ("BUY", "SELL", "SELL_SHORT", "UNKNOWN")
"""What the side of a trade may be."""

ACTIONS: Final = ("BUST", "CANCEL", "CORRECT")
"""What a correction may do."""

UNIT_DIGITS: Final = 9
"""So many, that a number of 28 digits times a unit fits 38."""

_LAYOUT_KEYS: Final = (
    *("header", "columns", "delimiter", "trim", "comment", "skip_lines", "fields", "vendor_data"),
    *("id_space", "identity", "zero_side_is_empty", "not_price_forming", "price_forming_only"),
)


@dataclass(frozen=True)
class Source:
    """Where one field of the model comes from; see docs/mapping.md for each key."""

    columns: tuple[str, ...] = ()
    value: str | None = None
    formats: tuple[str, ...] = ()
    zone: str | None = None
    unit: Decimal = Decimal(1)
    nulls: tuple[str, ...] = ()
    values: Mapping[str, str] | None = None
    otherwise: str | None = None
    optional: bool = False
    separator: str | None = None
    file: re.Pattern[str] | None = None
    lookup: bool = False

    @property
    def absent(self) -> tuple[str, ...]:
        """Texts that stand for nothing."""
        return (*self.nulls, "") if self.optional else self.nulls


@dataclass(frozen=True)
class Layout:
    """How a file of one kind of record is laid out."""

    kind: str
    fields: Mapping[str, Source]
    header: bool | None = True
    """None: a header line is told by its first letters."""
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    trim: bool = False
    comment: str | None = None
    skip_lines: tuple[str, ...] = ()
    vendor_data: tuple[str, ...] = ()
    id_space: str = ""
    identity: str = "content"
    zero_side_is_empty: bool = False
    not_price_forming: Mapping[str, frozenset[str]] = field(default_factory=dict)
    price_forming_only: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def used(self, *, with_symbol: bool = True) -> tuple[str, ...]:
        """Names of the file's columns that are read, each once, in the order of first use."""
        names = [
            column
            for field_, source in self.fields.items()
            for column in source.columns
            if with_symbol or field_ != "symbol"
        ]
        names += [*self.vendor_data, *self.not_price_forming, *self.price_forming_only]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class FileMapping:
    """A whole mapping: the exchange that the records belong to, and a layout per kind.

    `exchange_name` is None where the user or (`exchange_column`) the file itself names it.
    """

    name: str
    exchange_name: str | None
    exchange_column: str | None
    asset_class: str
    zone: str
    day_roll: timedelta
    numbered: tuple[str, ...]
    layouts: Mapping[str, Layout]

    def exchange(self, name: str) -> Exchange:
        """The declaration of the exchange under `name`; `BadInput` for a name that cannot be."""
        return Exchange(name, self.asset_class, self.zone, self.day_roll, self.numbered)

    def layout(self, kind: str) -> Layout:
        """The layout of `kind`; `BadInput` if the mapping has none."""
        if kind not in self.layouts:
            raise BadInput(
                f"the mapping {self.name!r} says nothing of {kind}",
                expected=f"one of {', '.join(self.layouts)}",
            )
        return self.layouts[kind]


def built_in() -> tuple[str, ...]:
    """Names of the mappings that come with K2, sorted."""
    folder = files("k2.feeds").joinpath("mappings")
    return tuple(sorted(e.name[:-5] for e in folder.iterdir() if e.name.endswith(".toml")))


def load_mapping(name: str) -> FileMapping:
    """The built-in mapping `name`, or the one in the TOML file of that path.

    Raises `BadInput` for a name that is neither, and for a file that is no mapping: its place names
    file and key.
    """
    return parse_mapping(*read_mapping(name))


def read_mapping(name: str) -> tuple[str, str]:
    """The text (TOML) of the mapping that `load_mapping` loads, and what to call its place. Raises
    `BadInput` where there is none.
    """
    if name in built_in():
        entry = files("k2.feeds").joinpath("mappings", f"{name}.toml")
        return entry.read_text("utf-8"), f"mapping {name}"
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        near = get_close_matches(name, built_in(), 1, 0.5)
        raise BadInput(
            f"there is no mapping called {name!r}",
            expected=f"one of {', '.join(built_in())}, or the path of a .toml file",
            hint=f"did you mean {near[0]}?" if near else None,
        )
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise BadInput(f"the mapping cannot be read: {reason}", place=name) from error
    return text, path.name


def parse_mapping(text: str, place: str) -> FileMapping:
    """The mapping in `text` (TOML). Raises `BadInput`, its place being `place` and the key."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"this is no TOML: {error}", place=place) from error
    top = Section(found, place, "")
    top.only("name", "exchange", *KINDS)
    name = top.text("name")
    if not name:
        top.bad("name", "the mapping has no name", expected="a text, stored with every record")
    exchange = top.table("exchange")
    exchange.only("name", "column", "asset_class", "zone", "day_roll_seconds", "numbered")
    asset_class = exchange.text("asset_class")
    if asset_class not in ASSET_CLASSES:
        exchange.bad(
            "asset_class", "this is no asset class", found=asset_class, one_of=ASSET_CLASSES
        )
    layouts: dict[str, Layout] = {
        kind: _layout(top.table(kind), kind) for kind in KINDS if kind in found
    }
    if not layouts:
        top.bad("", "the mapping maps nothing", one_of=[f"[{kind}]" for kind in KINDS])
    mapping = FileMapping(
        name,
        exchange.text("name"),
        exchange.text("column"),
        asset_class,
        exchange.zone("zone") or "",
        timedelta(seconds=exchange.integer("day_roll_seconds", 0)),
        _numbered(exchange),
        layouts,
    )
    if not mapping.zone:
        exchange.bad("zone", "the exchange has no time zone", expected="such as Australia/Sydney")
    if mapping.exchange_column and mapping.exchange_name:
        exchange.bad("column", "the exchange is named here or by a column, not both")
    if mapping.exchange_name is not None:
        try:
            mapping.exchange(mapping.exchange_name)
        except BadInput as error:
            exchange.bad("name", error.message, expected=error.expected)
    return mapping


def _numbered(exchange: Section) -> tuple[str, ...]:
    """Kinds of records whose ids count up by one."""
    found = exchange.texts("numbered")
    for kind in found:
        if kind not in NUMBERED:
            exchange.bad("numbered", "this kind has no ids that count", found=kind, one_of=NUMBERED)
    return found


def _layout(table: Section, kind: str) -> Layout:
    """The layout of one kind, checked against the kind's schema."""
    table.only(*_LAYOUT_KEYS)
    header = table.found.get("header", True)
    if header not in (True, False, "auto"):
        table.bad("header", "unknown", found=header, expected='true, false or "auto"')
    delimiter = table.text("delimiter") or ","
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        table.bad(
            "delimiter", "this cannot part columns", found=delimiter, expected="one character"
        )
    identity = table.text("identity") or "content"
    if identity not in ("content", "source_sequence"):
        table.bad("identity", "unknown", found=identity, one_of=("content", "source_sequence"))
    fields = table.table("fields")
    layout = Layout(
        kind,
        {name: _source(fields, name, kind) for name in fields.found},
        header=None if header == "auto" else bool(header),
        columns=table.texts("columns"),
        delimiter=delimiter,
        trim=table.boolean("trim"),
        comment=table.text("comment"),
        skip_lines=table.texts("skip_lines"),
        vendor_data=table.texts("vendor_data"),
        id_space=table.text("id_space") or "",
        identity=identity,
        zero_side_is_empty=table.boolean("zero_side_is_empty"),
        not_price_forming=_rules(table, "not_price_forming"),
        price_forming_only=_rules(table, "price_forming_only"),
    )
    _check_layout(table, layout)
    return layout


def _check_layout(table: Section, layout: Layout) -> None:
    fields = table.table("fields")
    schema = latest(layout.kind)
    for name in schema.arrow.names:
        # The symbol may come from the command line, so a mapping need not know it.
        needed = name not in schema.defaults and name not in FILLED_BY_K2 and name != "symbol"
        if needed and name not in layout.fields:
            fields.bad(name, f"{layout.kind} need this field, and nothing fills it")
    if layout.header is not True and not layout.columns:
        table.bad("columns", "without a header line the columns need names, in their order")
    repeated = [c for c in layout.columns if layout.columns.count(c) > 1]
    if repeated:
        table.bad("columns", "two columns have one name", found=repeated[0])
    if layout.columns:
        for column in layout.used():
            if column not in layout.columns:
                table.bad("columns", f"there is no column {column!r}", one_of=layout.columns)
    for key, kinds in (
        ("not_price_forming", ("trades",)),
        ("price_forming_only", ("trades",)),
        ("zero_side_is_empty", ("quotes",)),
        ("identity", ("quotes", "corrections")),
    ):
        if key in table.found and layout.kind not in kinds:
            table.bad(key, f"only {' and '.join(kinds)} have this")
    number = layout.fields.get("source_sequence")
    if layout.identity == "source_sequence" and (number is None or number.absent):
        fields.bad("source_sequence", "the identity is this field: each line must have it")


def _rules(table: Section, key: str) -> Mapping[str, frozenset[str]]:
    rules = table.table(key, {})
    return {column: frozenset(rules.texts(column)) for column in rules.found}


def _source(fields: Section, name: str, kind: str) -> Source:
    """Where the field `name` comes from: `"column"`, or a table of keys."""
    schema = latest(kind).arrow
    allowed = [n for n in schema.names if n not in FILLED_BY_K2]
    if name not in allowed:
        fields.bad(name, f"{kind} have no such field that a mapping fills", one_of=allowed)
    if isinstance(fields.found[name], str):
        fields = Section({name: {"column": fields.found[name]}}, fields.place, fields.path)
    table = fields.table(name)
    arrow = schema.field(name).type
    table.only(*_keys_for(name, arrow))
    columns = table.texts("columns")
    if column := table.text("column"):
        columns = (column, *columns)
    values = table.table("values", {})
    source = Source(
        columns=columns,
        value=table.text("value"),
        formats=table.texts("format"),
        zone=table.zone("zone"),
        unit=_unit(table),
        nulls=table.texts("null"),
        values={k.lower(): values.text(k) or "" for k in values.found} or None,
        otherwise=table.text("otherwise"),
        optional=table.boolean("optional"),
        separator=table.text("separator"),
        file=_pattern(table),
        lookup=table.boolean("lookup"),
    )
    _check_source(table, source, name, kind)
    return source


def _keys_for(name: str, arrow: pa.DataType) -> tuple[str, ...]:
    if pa.types.is_timestamp(arrow):
        return ("column", "columns", "format", "zone", "optional")
    if pa.types.is_date(arrow):
        return ("column", "columns", "format", "optional")
    if pa.types.is_decimal(arrow):
        return ("column", "unit", "null", "optional")
    if pa.types.is_integer(arrow):
        return ("column", "null", "optional")
    keys = ("column", "value", "values", "otherwise", "null", "optional")
    if name == "symbol":
        return (*keys, "file", "lookup")
    return (*keys, "columns", "separator") if name == "conditions" else keys


def _check_source(table: Section, source: Source, name: str, kind: str) -> None:
    arrow = latest(kind).arrow.field(name).type
    ways = [bool(source.columns), source.value is not None, source.file is not None]
    if sum(ways) != 1:
        table.bad("", "a field comes from one place", one_of=("column", "columns", "value", "file"))
    timed = pa.types.is_timestamp(arrow) or pa.types.is_date(arrow)
    if timed and not source.formats:
        table.bad("format", "a time needs a format", expected='such as "%Y-%m-%d %H:%M:%S.%f"')
    for text in source.formats:
        try:
            check_format(text, date_only=pa.types.is_date(arrow))
        except BadInput as error:
            table.bad("format", error.message, found=text, expected=error.expected)
    needed = name not in latest(kind).defaults and not latest(kind).arrow.field(name).nullable
    if needed and source.absent:
        table.bad("null" if source.nulls else "optional", f"{kind} need this field in each line")
    if allowed := {"side": SIDES, "action": ACTIONS}.get(name):
        chosen = [*(source.values or {}).values(), source.otherwise, source.value]
        for word in chosen:
            if word is not None and word not in allowed:
                table.bad("values", f"this is no {name}", found=word, one_of=allowed)


def _unit(table: Section) -> Decimal:
    text = table.text("unit")
    if text is None:
        return Decimal(1)
    try:
        unit = Decimal(text)
    except InvalidOperation:
        unit = Decimal(0)
    if not unit.is_finite() or not Decimal("1e-9") <= unit <= Decimal("1e8"):
        table.bad("unit", "this is no unit", found=text, expected='such as "0.01", 1e-9 to 1e8')
    if len(unit.normalize().as_tuple().digits) > UNIT_DIGITS:
        table.bad("unit", "the unit has too many digits", found=text)
    return unit


def _pattern(table: Section) -> re.Pattern[str] | None:
    text = table.text("file")
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        table.bad("file", f"this is no regular expression: {error}", found=text)
    if pattern.groups != 1:
        table.bad("file", "one group says which part of the file's name it is", found=text)
    return pattern
