"""Bars by other kinds, measures and best quotes over HTTP are those of the query room."""

import json
from decimal import Decimal
from typing import Any

import httpx
import pyarrow as pa
import pytest

from k2.query import Reader, Selection
from k2.query.aggregations import METRICS
from tests.api.test_records import expected, rows
from tests.api.test_shape import check_error


@pytest.mark.parametrize(("kind", "size"), [("tick", "7"), ("volume", "2.5"), ("dollar", "40000")])
def test_bars_by_what_traded(
    client: httpx.Client, reader: Reader, symbol: str, kind: str, size: str
) -> None:
    wanted = expected(reader.bars(Selection((symbol,)), size, kind=kind).table)
    assert len(wanted) > 3
    assert list(wanted[0])[3] == "end"
    asked: dict[str, Any] = {"symbol": symbol, "kind": kind, "last": 10_000}
    assert rows(client.get(f"/v1/bars/{size}", params=asked)) == wanted
    assert rows(client.get(f"/v1/bars/{size}", params={**asked, "last": 3})) == wanted[-3:]
    batch = {"symbols": [symbol], "interval": size, "kind": kind, "last": 4}
    assert rows(client.post("/v1/bars/batch", json=batch)) == wanted[-4:]


def test_bars_of_all_exchanges_and_filled(
    client: httpx.Client, reader: Reader, symbol: str
) -> None:
    one: dict[str, Any] = {"symbol": symbol, "consolidated": "true", "last": 10_000}
    found = rows(client.get("/v1/bars/5s", params=one))
    assert found == expected(reader.bars(Selection((symbol,)), "5s", consolidated=True).table)
    assert {(bar["exchange"], bar["exchanges"]) for bar in found} == {("*", "simulated")}
    filled = rows(client.get("/v1/bars/1s", params={"symbol": symbol, "fill": "true"}))
    assert {bar["state"] for bar in filled} <= {"traded", "empty"}


def test_measures_in_every_format(client: httpx.Client, reader: Reader, symbol: str) -> None:
    asked: dict[str, Any] = {"symbols": [symbol], "interval": "5s", "metrics": list(METRICS)}
    found = rows(client.post("/v1/aggregations", json=asked))
    made = reader.aggregate(Selection((symbol,)), list(METRICS), "5s").table
    bars = reader.bars(Selection((symbol,)), "5s").table
    assert len(found) == bars.num_rows > 3
    for row, bar in zip(found, expected(bars), strict=True):
        assert {name: row[name] for name in bar} == bar
        levels = row["volume_profile"]
        assert sum(Decimal(level["volume"]) for level in levels) == Decimal(bar["volume"])
        assert sum(level["trade_count"] for level in levels) == bar["trade_count"]
        assert {levels[0]["price"], levels[-1]["price"]} == {bar["low"], bar["high"]}
        assert Decimal(bar["low"]) <= Decimal(row["twap"]) <= Decimal(bar["high"])
    arrow = client.post("/v1/aggregations", json={**asked, "format": "arrow"})
    assert pa.ipc.open_stream(arrow.content).read_all().equals(made)
    text = client.post("/v1/aggregations", json={**asked, "format": "ndjson"}).text
    assert [json.loads(line) for line in text.splitlines()] == found


def test_bins_and_what_is_wrong_with_a_question(client: httpx.Client, symbol: str) -> None:
    asked: dict[str, Any] = {"symbols": [symbol], "interval": "1d", "metrics": ["volume_profile"]}
    (fine,) = rows(client.post("/v1/aggregations", json=asked))
    for width in ("0.5", 0.5):
        (coarse,) = rows(client.post("/v1/aggregations", json={**asked, "bin_size": width}))
        levels = coarse["volume_profile"]
        assert 1 < len(levels) <= len(fine["volume_profile"])
        assert all(Decimal(level["price"]) % Decimal("0.5") == 0 for level in levels)
    for change, place in (
        ({"metrics": ["median"]}, "body.metrics.0"),
        ({"metrics": []}, "body.metrics"),
        ({"symbols": ["X"] * 51}, "body.symbols"),
        ({"symbols": []}, "body.symbols"),
        ({"bin_size": "0"}, "bin_size"),
        ({"metrics": ["vwap"], "bin_size": "1"}, "bin_size"),
        ({"start_time": "yesterday"}, "start_time"),
    ):
        response = client.post("/v1/aggregations", json={**asked, **change})
        assert check_error(response, 422, "VALIDATION_ERROR")["place"] == place
    response = client.post("/v1/aggregations", json={**asked, "interval": "7m"})
    assert "interval" in check_error(response, 422, "VALIDATION_ERROR")["message"]


def test_best_quotes(client: httpx.Client, reader: Reader, symbol: str) -> None:
    wanted = expected(reader.bbo(Selection((symbol,))).table)
    assert len(wanted) > 10
    answer = client.get("/v1/bbo", params={"symbol": symbol, "last": 100_000})
    assert rows(answer) == wanted
    newest = client.get("/v1/bbo", params={"symbol": symbol, "last": 5})
    assert rows(newest) == wanted[-5:]
    assert any("only the newest 5" in note for note in newest.json()["meta"]["notes"])
    other = client.get("/v1/bbo", params=[("symbol", symbol), ("exchange", "asx")])
    assert rows(other) == []
    both: list[tuple[str, Any]] = [
        ("symbol", symbol),
        ("exchange", "asx"),
        ("exchange", "simulated"),
        ("last", "5"),
    ]
    assert rows(client.get("/v1/bbo", params=both)) == wanted[-5:]
    past = client.get("/v1/snapshots?table=quotes").json()["data"][0]["snapshot_id"]
    then = rows(client.get("/v1/bbo", params={"symbol": symbol, "as_of": past, "last": 100_000}))
    assert then == wanted[: len(then)]
    assert 0 < len(then) < len(wanted)


def test_a_session_must_be_declared(client: httpx.Client, symbol: str) -> None:
    response = client.get("/v1/bars/1m", params={"symbol": symbol, "session": "regular"})
    error = check_error(response, 422, "VALIDATION_ERROR")
    assert "no sessions are declared" in error["message"]
    assert rows(client.get("/v1/bars/1m", params={"symbol": symbol, "session": "all"}))
