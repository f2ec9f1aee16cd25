"""Which next versions of a schema are let in, and in what words the others are refused."""

import copy
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from k2.errors import BadInput
from k2.log.evolution import canonical, objections
from k2.model import kinds, versions

Schema = dict[str, Any]

DECIMAL = {
    "type": "fixed",
    "name": "decimal_18_8",
    "size": 8,
    "logicalType": "decimal",
    "precision": 18,
    "scale": 8,
}
BASE: Schema = {
    "type": "record",
    "name": "trade",
    "namespace": "k2",
    "doc": "An execution.",
    "fields": [
        {"name": "symbol", "type": "string", "dictionary": True},
        {"name": "price", "type": DECIMAL, "doc": "Exact"},
        {"name": "quantity", "type": ["null", "decimal_18_8"], "default": None},
        {"name": "number", "type": "int"},
        {"name": "line", "type": ["null", "int"], "default": None},
        {"name": "share", "type": "float", "default": 0},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {
            "name": "side",
            "type": {"type": "enum", "name": "side", "symbols": ["UNKNOWN", "BUY", "SELL"]},
            "default": "UNKNOWN",
        },
    ],
}


def change(apply: Callable[[Schema, dict[str, Schema]], object]) -> Schema:
    """BASE with a change, made on the schema or on its fields by name."""
    schema = copy.deepcopy(BASE)
    apply(schema, {field["name"]: field for field in schema["fields"]})
    return schema


def retype(name: str, to: Any) -> Schema:
    return change(lambda _, fields: fields[name].update(type=to))


def add(**field: Any) -> Schema:
    return change(lambda schema, _: schema["fields"].append(field))


SAME = {
    "docs": change(lambda schema, fields: (schema.pop("doc"), fields["price"].pop("doc"))),
    "full names": change(lambda s, _: (s.pop("namespace"), s.update(name="k2.trade"))),
    "spelling of a primitive": retype("symbol", {"type": "string"}),
    "full name of a type": retype("quantity", ["null", "k2.decimal_18_8"]),
}
# The first type without its namespace is another type.
SAME["full names"]["fields"][1]["type"]["name"] = "k2.decimal_18_8"
SAME["full names"]["fields"][2]["type"][1] = "k2.decimal_18_8"
SAME["full names"]["fields"][7]["type"]["name"] = "k2.side"

ALLOWED = {
    "a field with a default": add(name="venue", type="string", default=""),
    "a field that may be null": add(name="venue", type=["null", "string"], default=None),
    "an enum field": add(
        name="class",
        type={"type": "enum", "name": "class", "symbols": ["A", "B"], "default": "A"},
        default="A",
    ),
    "int to long": retype("number", "long"),
    "int to long beside null": retype("line", ["null", "long"]),
    "float to double": retype("share", "double"),
    "null": retype("number", ["int", "null"]),
    "null and wider": retype("number", ["long", "null"]),
    "another default": change(lambda _, fields: fields["share"].update(default=1.5)),
    "more symbols": retype(
        "side", {"type": "enum", "name": "side", "symbols": ["BUY", "CROSS", "UNKNOWN", "SELL"]}
    ),
    "another order": change(lambda schema, _: schema["fields"].insert(0, schema["fields"].pop())),
    "another dictionary": change(lambda _, fields: fields["symbol"].pop("dictionary")),
}

REFUSED = {
    "a field without default": (
        add(name="venue", type="string"),
        "field venue is new and has no default, so records written before could not be read",
    ),
    "a field that goes": (
        change(lambda schema, _: schema["fields"].pop(3)),
        "field number is removed",
    ),
    "a rename": (
        change(lambda _, fields: fields["number"].update(name="no", aliases=["number"])),
        "field number is renamed to no",
    ),
    "another record": (
        change(lambda schema, _: schema.update(name="deal")),
        "the record is renamed from k2.trade to k2.deal",
    ),
    "narrowing": (
        retype("at", {"type": "int"}),
        "field at changes its type from long (timestamp-micros) to int",
    ),
    "another unit": (
        retype("at", {"type": "long", "logicalType": "timestamp-millis"}),
        "field at changes its type from long (timestamp-micros) to long (timestamp-millis)",
    ),
    "text to bytes, which Avro allows": (
        retype("symbol", "bytes"),
        "field symbol changes its type from string to bytes",
    ),
    "int to double, which Avro allows": (
        retype("number", "double"),
        "field number changes its type from int to double",
    ),
    "no more null": (
        change(lambda _, fields: fields["line"].update(type="int", default=0)),
        "field line may no longer be null, but records written before may hold null",
    ),
    "lost symbols": (
        retype(
            "side",
            {"type": "enum", "name": "side", "symbols": ["UNKNOWN", "BUY"], "default": "UNKNOWN"},
        ),
        "field side loses the enum's SELL, which records written before may hold",
    ),
    "another enum": (
        retype("side", {"type": "enum", "name": "way", "symbols": ["UNKNOWN", "BUY", "SELL"]}),
        "field side renames its enum from k2.side to k2.way",
    ),
    "a union of two": (
        retype("line", ["null", "int", "string"]),
        "field line changes its type from int to a union of int, string",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_spellings_of_one_schema_are_the_same(name: str) -> None:
    assert canonical(SAME[name]) == canonical(BASE)
    assert objections(SAME[name], BASE) == []


@pytest.mark.parametrize("name", ALLOWED)
def test_what_keeps_every_record_readable_is_allowed(name: str) -> None:
    assert canonical(ALLOWED[name]) != canonical(BASE)
    assert objections(ALLOWED[name], BASE) == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_is_refused_in_plain_words(name: str) -> None:
    schema, why = REFUSED[name]
    assert objections(schema, BASE) == [why]


@pytest.mark.parametrize(
    ("facts", "became"),
    [
        ({"precision": 16}, "decimal(16,8) in 8 bytes"),
        ({"scale": 6}, "decimal(18,6) in 8 bytes"),
        ({"size": 16, "precision": 38}, "decimal(38,8) in 16 bytes"),
    ],
)
def test_a_decimal_stays_as_it_is(facts: dict[str, int], became: str) -> None:
    was = "decimal(18,8) in 8 bytes"
    assert objections(retype("price", DECIMAL | facts), BASE) == [
        # quantity refers to the type that price defines
        f"field price changes its type from {was} to {became}",
        f"field quantity changes its type from {was} to {became}",
    ]


def test_all_objections_are_told_at_once() -> None:
    changed = change(
        lambda schema, fields: (schema["fields"].pop(0), fields["at"].update(type="long"))
    )
    assert len(objections(changed, BASE)) == 2


@pytest.mark.parametrize("kind", kinds())
def test_each_version_of_the_model_follows_the_one_before(kind: str) -> None:
    every = versions(kind)
    for older, newer in pairwise(every):
        assert objections(newer.avro, older.avro) == []
        assert objections(older.avro, newer.avro) != []


def test_a_recursive_record_has_an_end() -> None:
    tree = {
        "type": "record",
        "name": "tree",
        "fields": [{"name": "left", "type": ["null", "tree"], "default": None}],
    }
    assert objections(tree, copy.deepcopy(tree)) == []


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "record", "name": "r"},
        {"type": "enum", "name": "e", "symbols": ["A"]},
        {"type": "record", "name": "r", "fields": [{"name": "a", "type": "nothing"}]},
        {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}] * 2},
        {"type": "record", "name": "9", "fields": []},
        {"type": "record", "name": "r", "fields": [{"name": "a", "type": {1, 2}}]},
    ],
)
def test_what_is_no_record_schema_is_bad_input(schema: Schema) -> None:
    with pytest.raises(BadInput):
        canonical(schema)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("string", "", None),
        ("int", -(2**31), 2**31),
        ("long", 2**63 - 1, 2**63),
        ("long", 0, True),
        ("double", 1, "1"),
        ("boolean", False, 0),
        (["null", "int"], None, 3),
        (["int", "null"], 3, None),
        ("bytes", "ÿ", 1),
        ({"type": "fixed", "name": "f", "size": 2}, "ab", "a"),
        ({"type": "enum", "name": "e", "symbols": ["A"]}, "A", "B"),
        ({"type": "array", "items": "int"}, [1], ["1"]),
        ({"type": "map", "values": "int"}, {"a": 1}, {"a": None}),
    ],
)
def test_a_default_must_fit_its_type(kind: Any, good: object, bad: object) -> None:
    def schema(default: object) -> Schema:
        return {
            "type": "record",
            "name": "r",
            "fields": [{"name": "a", "type": kind, "default": default}],
        }

    canonical(schema(good))
    with pytest.raises(BadInput, match="field a"):
        canonical(schema(bad))


def test_an_unknown_logical_type_is_let_through_with_a_warning() -> None:
    schema = retype("number", {"type": "int", "logicalType": "color"})
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert objections(schema, BASE) == ["field number changes its type from int to int (color)"]
