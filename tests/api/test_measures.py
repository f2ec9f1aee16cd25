"""GET /v1/spreads and /v1/markouts: the reader's own answers, and what cannot be asked."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from k2.query import (
    MarkoutsWanted,
    Measuring,
    Reader,
    Rule,
    Selection,
    SpreadsWanted,
    parse_interval,
)
from tests.api.test_shape import check_error


def data(client: httpx.Client, path: str, **asked: Any) -> list[dict[str, Any]]:
    response = client.get(path, params=asked)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def decimals(rows: list[Any]) -> list[Decimal | None]:
    return [None if value is None else Decimal(value) for value in rows]


def test_spreads_are_the_readers(client: httpx.Client, reader: Reader, symbol: str) -> None:
    how = Measuring(Rule(strict=True, look_ahead=True), timedelta(seconds=5), all_trades=True)
    wanted = SpreadsWanted(parse_interval("5s"), timedelta(seconds=2), how)
    expected = reader.spreads(wanted, Selection((symbol,))).table
    asked = {"interval": "5s", "horizon": "2s", "max_age": "5s"}
    flags = dict.fromkeys(("strict", "look_ahead", "all_trades"), "true")
    found = data(client, "/v1/spreads", symbol=symbol, **asked, **flags)
    assert len(found) == expected.num_rows > 1
    for name in ("quoted_spread", "effective_spread", "realised_spread", "quoted_seconds"):
        assert decimals([row[name] for row in found]) == expected[name].to_pylist()
    assert any(row["realised_spread"] for row in found)


def test_markouts_are_the_readers(client: httpx.Client, reader: Reader, symbol: str) -> None:
    wanted = MarkoutsWanted((timedelta(milliseconds=500), timedelta(seconds=1)))
    expected = reader.markouts(wanted, Selection((symbol,))).table
    asked = {"symbol": symbol, "horizon": ["500ms", "1s"]}
    found = data(client, "/v1/markouts", **asked)
    assert [row["horizon"] for row in found] == expected["horizon"].to_pylist()
    assert [row["horizon"] for row in found] == ["500ms", "1s"] * 2
    assert decimals([row["markout"] for row in found]) == expected["markout"].to_pylist()
    assert [row["trade_count"] for row in found] == expected["trade_count"].to_pylist()


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/v1/spreads", "query.symbol"),
        ("/v1/spreads?symbol=X&horizon=soon", "query.horizon"),
        ("/v1/spreads?symbol=X&strict=maybe", "query.strict"),
        ("/v1/markouts?symbol=X&max_age=1", "query.max_age"),
        ("/v1/markouts?symbol=X&horizon=1s&horizon=2", "query.horizon"),
        ("/v1/markouts?symbol=X" + "&horizon=1s" * 21, "query.horizon"),
        ("/v1/markouts?symbol=X&interval=1m", "query.interval"),
    ],
)
def test_what_cannot_be_measured(client: httpx.Client, path: str, place: str) -> None:
    assert check_error(client.get(path), 422, "VALIDATION_ERROR")["place"] == place


def test_an_interval_that_there_is_not(client: httpx.Client) -> None:
    error = check_error(client.get("/v1/spreads?symbol=X&interval=7m"), 422, "VALIDATION_ERROR")
    assert "interval" in error["message"]
