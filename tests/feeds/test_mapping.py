"""Mappings: every mistake is told with file, key and what was expected; the document is true."""

import json
import re
from pathlib import Path

import pytest

from k2.errors import BadInput
from k2.feeds import mapping
from k2.feeds.mapping import built_in, load_mapping, parse_mapping
from k2.model import latest
from tests.feeds.reading import PLAIN, read_file

DOCUMENT = Path(__file__).parents[2] / "docs" / "mapping.md"
PRICE, TIME = 'price = "price"', 'format = "%Y-%m-%d %H:%M:%S.%f"'
HEADER, EXCHANGE, CLASS = "header = false", 'name = "X"', 'asset_class = "equities"'


def test_an_unknown_name_lists_those_that_there_are() -> None:
    with pytest.raises(BadInput, match="no mapping called 'axs'") as caught:
        load_mapping("axs")
    for name in built_in():
        assert name in (caught.value.expected or "")
    assert caught.value.hint == "did you mean asx?"


def test_a_file_that_is_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for write, message in (
        (lambda: None, "cannot be read: No such file"),
        (lambda: path.write_bytes(b"\xff"), "cannot be read: it is no UTF-8 text"),
        (lambda: path.write_text("a = = 1"), "no TOML"),
        (lambda: path.write_text(""), "no name"),
    ):
        write()
        with pytest.raises(BadInput, match=message) as caught:
            load_mapping(str(path))
        assert "mine.toml" in (caught.value.place or "")
    path.write_text(PLAIN)
    assert load_mapping(str(path)).exchange("X").zone == "UTC"
    path.rename(tmp_path / "mine")
    assert load_mapping(str(tmp_path / "mine")).name == "plain"


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ('name = "plain"', "", "name", "no name"),
        ('name = "plain"', "name = 5", "name", "no text"),
        ('name = "plain"', 'name = "plain"\nhead = 1', "head", "no such key"),
        (EXCHANGE, 'name = "X Y"', "exchange.name", "cannot name an exchange"),
        (EXCHANGE, 'name = "X"\ncolumn = "y"', "exchange.column", "not both"),
        (CLASS, 'asset_class = "equity"', "exchange.asset_class", "no asset class"),
        (CLASS, CLASS + "\nday_roll_seconds = 0.5", "exchange.day_roll_seconds", "whole number"),
        ('zone = "UTC"', 'zone = "Sydney"', "exchange.zone", "no time zone"),
        ('zone = "UTC"', 'zone = "/etc/passwd"', "exchange.zone", "no time zone"),
        ('zone = "UTC"', "", "exchange.zone", "no time zone"),
        ("[trades]", "[candles]", "candles", "no such key"),
        (HEADER, "header = 1.5", "trades.header", "unknown"),
        (HEADER, HEADER + '\ndelimiter = "ab"', "trades.delimiter", "cannot part"),
        (HEADER, HEADER + '\ntrim = "yes"', "trades.trim", "neither true nor false"),
        (HEADER, HEADER + "\nskip_lines = [1]", "trades.skip_lines", "no list of texts"),
        (
            HEADER,
            HEADER + "\nzero_side_is_empty = true",
            "trades.zero_side_is_empty",
            "only quotes",
        ),
        (HEADER, HEADER + '\nidentity = "id"', "trades.identity", "unknown"),
        (HEADER, HEADER + '\nvendor_data = ["venue"]', "trades.columns", "no column 'venue'"),
        ('columns = ["time"', 'columns = ["price"', "trades.columns", "one name"),
        ('columns = ["time", "price", "quantity"]', "", "trades.columns", "need names"),
        ("[trades.fields]", "[trades.feilds]", "trades.feilds", "no such key"),
        (PRICE, "", "trades.fields.price", "need this field"),
        (PRICE, PRICE + '\nprize = "price"', "trades.fields.prize", "no such field"),
        (PRICE, PRICE + '\noccurrence = "price"', "trades.fields.occurrence", "no such field"),
        (PRICE, "price = 5", "trades.fields.price", "no table"),
        (PRICE, 'price = "prise"', "trades.columns", "no column 'prise'"),
        (PRICE, "price = {}", "trades.fields.price", "one place"),
        (PRICE, 'price = { column = "price", unit = "x" }', "trades.fields.price.unit", "no unit"),
        (PRICE, 'price = { column = "price", unit = "0" }', "trades.fields.price.unit", "no unit"),
        (
            PRICE,
            'price = { column = "price", unit = "1.0123456789" }',
            "trades.fields.price.unit",
            "too many digits",
        ),
        (
            PRICE,
            'price = { column = "price", optional = true }',
            "trades.fields.price.optional",
            "in each line",
        ),
        (PRICE, 'price = { column = "price", file = "x" }', "trades.fields.price.file", "such key"),
        (TIME, 'format = "%Y-%m-%d %Q"', "trades.fields.timestamp.format", "%Q is unknown"),
        (TIME, 'format = "%H:%M"', "trades.fields.timestamp.format", "year, month and day"),
        (TIME, 'format = "%Y%m%d%Y"', "trades.fields.timestamp.format", "named twice"),
        (TIME, 'format = "%Y%m%d%I"', "trades.fields.timestamp.format", "%I with %p"),
        (TIME, 'format = "epoch:min"', "trades.fields.timestamp.format", "no format"),
        (
            PRICE,
            PRICE + '\nside = { column = "price", values = { a = "LONG" } }',
            "trades.fields.side.values",
            "no side",
        ),
        (
            'symbol = { value = "ABC" }',
            "symbol = { file = '[A-Z]+' }",
            "trades.fields.symbol.file",
            "one group",
        ),
        (
            'symbol = { value = "ABC" }',
            "symbol = { file = '(' }",
            "trades.fields.symbol.file",
            "regular expression",
        ),
    ],
)
def test_a_mistake_is_told_with_its_key(old: str, new: str, key: str, message: str) -> None:
    assert old in PLAIN
    text = PLAIN.replace(old, new, 1)
    with pytest.raises(BadInput) as caught:
        parse_mapping(text, "plain.toml")
    assert message in caught.value.message
    assert caught.value.place == f"plain.toml, {key}"


def test_a_mistake_names_what_is_nearest() -> None:
    with pytest.raises(BadInput) as caught:
        parse_mapping(PLAIN.replace("quantity = ", "quantitty = "), "plain.toml")
    assert caught.value.hint == "did you mean quantity?"


def test_a_kind_that_a_mapping_does_not_know() -> None:
    with pytest.raises(BadInput, match="says nothing of quotes") as caught:
        load_mapping("binance").layout("quotes")
    assert caught.value.expected == "one of trades"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)


def test_the_document_s_example_is_true(tmp_path: Path) -> None:
    (text,), (toml,), (answer,) = _blocks("csv"), _blocks("toml"), _blocks("json")
    path = tmp_path / "prices.csv"
    path.write_text(text)
    (tmp_path / "prices.toml").write_text(toml)
    found = read_file(path, str(tmp_path / "prices.toml"), "trades")
    wanted = json.loads(answer)
    assert found.records.num_rows == len(wanted)
    for at, row in enumerate(wanted):
        record = found.records.slice(at, 1).to_pylist()[0]
        record["timestamp"] = record["timestamp"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for name in ("price", "quantity"):
            record[name] = f"{record[name].normalize():f}"
        assert {name: record[name] for name in row} == row
    ((line, _, reason),) = found.refused()
    assert f"line {line} stands among the rejected, whole: `{reason}`" in DOCUMENT.read_text(
        "utf-8"
    )


def test_the_document_names_every_mapping_and_key() -> None:
    text = DOCUMENT.read_text("utf-8")
    for name in built_in():
        assert f"`{name}`" in text
    keys = set(mapping._LAYOUT_KEYS) - {"fields"}
    for kind in mapping.KINDS:
        for field in latest(kind).arrow:
            keys |= set(mapping._keys_for(field.name, field.type))
    for key in sorted(keys):
        assert f"`{key}`" in text, key
