"""Records, bars and ledgers over HTTP are those of the tables, in every format, to the digit."""

import csv
import io
import json
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.encode import to_text
from k2.ingest import Change, Level
from k2.ingest.board import Board
from k2.log import open_log
from k2.query import Condition, Reader, Selection, open_reader
from tests.api.conftest import audit_of, fill, running


def rows(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def expected(table: pa.Table) -> list[dict[str, Any]]:
    return to_text(table).to_dicts()


@pytest.mark.parametrize("kind", ["trades", "quotes"])
def test_pages_hold_every_record_once(client: httpx.Client, reader: Reader, kind: str) -> None:
    whole = reader.records(kind, Selection())
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get(f"/v1/{kind}", params={"limit": 1_000, **after}).json()
        assert page["pagination"]["limit"] == 1_000
        found += page["data"]
        if page["pagination"]["next"] is None:
            break
        after = {"after": page["pagination"]["next"]}
    assert len(found) > 2_000
    assert found == expected(whole.table)


def test_history_and_tail_are_one(client: httpx.Client) -> None:
    status = rows(client.get("/v1/status"))[0]
    meta = client.get("/v1/trades?last=1").json()["meta"]
    assert meta["snapshots"]["trades"]
    assert meta["offsets"]
    assert status["lag_messages"] > 0


def test_last_is_the_newest_in_order(client: httpx.Client, reader: Reader, symbol: str) -> None:
    found = rows(client.get("/v1/trades", params={"symbol": symbol, "last": 7}))
    assert found == expected(reader.records("trades", Selection((symbol,))).table)[-7:]


def test_every_format_says_the_same(client: httpx.Client, symbol: str) -> None:
    params: dict[str, str | int] = {"symbol": symbol, "limit": 50}
    answers = {
        name: client.get("/v1/trades", params={**params, "format": name})
        for name in ("json", "ndjson", "csv", "arrow", "parquet")
    }
    wanted = rows(answers["json"])
    assert [json.loads(line) for line in answers["ndjson"].text.splitlines()] == wanted
    arrow = pa.ipc.open_stream(answers["arrow"].content).read_all()
    assert arrow.schema.field("price").type == pa.decimal128(18, 8)
    assert expected(arrow) == wanted
    assert expected(pq.read_table(io.BytesIO(answers["parquet"].content))) == wanted
    table = list(csv.DictReader(io.StringIO(answers["csv"].text)))
    assert [row["price"] for row in table] == [row["price"] for row in wanted]
    token = answers["json"].json()["pagination"]["next"]
    for name, answer in answers.items():
        by_accept = {"Accept": answer.headers["content-type"].split(";")[0]}
        again = client.get("/v1/trades", params=params, headers=by_accept)
        assert again.headers["content-type"] == answer.headers["content-type"]
        assert answer.headers["k2-next"] == token, name


def test_accept_takes_the_best_and_falls_back_to_json(client: httpx.Client) -> None:
    for accept, media_type in {
        "text/html,application/xhtml+xml,*/*;q=0.8": "application/json",
        "text/csv;q=0.5, application/x-ndjson": "application/x-ndjson",
        "application/x-ndjson, text/csv;q=0.5": "application/x-ndjson",
        "text/csv;q=nonsense": "application/json",
        "": "application/json",
    }.items():
        response = client.get("/v1/symbols", headers={"Accept": accept})
        assert response.headers["content-type"] == media_type


def test_filters_apply_before_the_limit_and_keep_every_digit(
    client: httpx.Client, reader: Reader, symbol: str
) -> None:
    prices = reader.records("trades", Selection((symbol,))).table["price"].to_pylist()
    middle = sorted(prices)[len(prices) // 2]
    where = (Condition("price", ">=", str(middle)),)
    wanted = expected(reader.records("trades", Selection((symbol,), where=where)).table)
    for bound in (str(middle), float(middle), f"{middle - Decimal('1e-12'):f}"):
        asked = {"symbols": [symbol], "min_price": bound, "limit": 100_000}
        assert rows(client.post("/v1/trades/query", json=asked)) == wanted
    above = {"symbols": [symbol], "min_price": f"{middle + Decimal('1e-12'):f}", "limit": 100_000}
    assert all(
        Decimal(r["price"]) > middle for r in rows(client.post("/v1/trades/query", json=above))
    )
    few = {"symbols": [symbol], "min_price": str(middle), "limit": 3, "fields": ["price", "symbol"]}
    page = client.post("/v1/trades/query", json=few).json()
    assert [list(row) for row in page["data"]] == [["price", "symbol"]] * 3
    assert [row["price"] for row in page["data"]] == [row["price"] for row in wanted[:3]]
    following = client.post("/v1/trades/query", json={**few, "after": page["pagination"]["next"]})
    assert [row["price"] for row in rows(following)] == [row["price"] for row in wanted[3:6]]


def test_quotes_are_filtered_by_their_sides(client: httpx.Client, symbol: str) -> None:
    quotes = rows(client.get("/v1/quotes", params={"symbol": symbol, "last": 500}))
    bid = sorted(Decimal(row["bid_price"]) for row in quotes)[250]
    found = rows(client.post("/v1/quotes/query", json={"symbols": [symbol], "min_price": str(bid)}))
    assert found
    assert all(Decimal(row["bid_price"]) >= bid for row in found)


def test_bars_are_those_of_the_query_room(
    client: httpx.Client, reader: Reader, symbol: str
) -> None:
    wanted = expected(reader.bars(Selection((symbol,)), "5s").table)
    assert len(wanted) > 10
    found = rows(client.get("/v1/bars/5s", params={"symbol": symbol, "last": 10_000}))
    assert found == wanted
    assert rows(client.get("/v1/bars/5s", params={"symbol": symbol, "last": 3})) == wanted[-3:]
    batch = {"symbols": [symbol], "interval": "5s", "last": 4}
    assert rows(client.post("/v1/bars/batch", json=batch)) == wanted[-4:]


def test_summary_of_a_day(client: httpx.Client, reader: Reader, symbol: str) -> None:
    day = reader.bars(Selection((symbol,)), "1d").table
    found = rows(client.get(f"/v1/summary/{symbol}/2026-01-05"))
    assert found[0]["volume"] == expected(day)[0]["volume"]
    assert found[0]["date"] == "2026-01-05"


def test_a_snapshot_is_asked_by_its_id(client: httpx.Client, reader: Reader) -> None:
    newest = rows(client.get("/v1/snapshots?table=trades&limit=1"))[0]
    asked = {"limit": 100_000, "fields": ["price"]}
    at = rows(client.post(f"/v1/snapshots/{newest['snapshot_id']}/query", json=asked))
    now = rows(client.post("/v1/trades/query", json=asked))
    assert 0 < len(at) < len(now), "the tail is in no snapshot"
    whole = reader.records("trades", Selection(), as_of=newest["snapshot_id"]).table
    assert at == [{"price": row["price"]} for row in expected(whole)]


def test_audit_adds_up(client: httpx.Client) -> None:
    body = client.get("/v1/audit").json()
    assert body["meta"]["ok"] is True
    for one in body["data"]:
        fates = (
            *("committed", "duplicate", "rejected", "retired"),
            *("shed", "absent", "lost", "in_flight"),
        )
        assert sum(one[fate] for fate in fates) == one["end_offset"] - one["start_offset"]
    assert sum(one["in_flight"] for one in body["data"]) > 0


def test_ledgers_name_what_was_not_committed(client: httpx.Client) -> None:
    assert rows(client.get("/v1/rejected"))
    assert rows(client.get("/v1/duplicates"))
    assert len(rows(client.get("/v1/duplicates?limit=1"))) == 1


def test_writers_tell_how_overloaded_they_are(client: httpx.Client, home: Path) -> None:
    with closing(open_log(f"sqlite:{home / 'log.db'}")) as log:
        board = Board(log)
        board.tell(Level.SOFT, Change(Level.NORMAL, Level.SOFT, "lag 100,000 of 100,000"))
        (told,) = rows(client.get("/v1/degradation"))
        assert (told["level"], told["number"]) == ("SOFT", 1)
        (change,) = told["history"]
        assert (change["before"], change["after"]) == ("NORMAL", "SOFT")
        assert change["reason"] == "lag 100,000 of 100,000"
        board.leave()
        assert rows(client.get("/v1/degradation")) == []


def test_etag_says_that_nothing_changed(client: httpx.Client, symbol: str) -> None:
    params = {"symbol": symbol, "last": "5"}
    first = client.get("/v1/trades", params=params)
    again = client.get(
        "/v1/trades", params=params, headers={"If-None-Match": first.headers["etag"]}
    )
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == first.headers["etag"]
    for other in ({**params, "last": "6"}, {**params, "format": "csv"}):
        headers = {"If-None-Match": first.headers["etag"]}
        assert client.get("/v1/trades", params=other, headers=headers).status_code == 200


def test_what_is_committed_changes_the_etag(tmp_path: Path) -> None:
    fill(tmp_path, 3_000, commit=True)
    paths = (
        "/v1/duplicates?limit=1",
        "/v1/snapshots?limit=1",
        "/v1/trades?last=1",
        "/v1/symbols",
        "/v1/stats",
    )
    with open_reader(tmp_path) as reader, running(reader, dict, audit_seconds=None) as client:
        tags = {path: client.get(path).headers["etag"] for path in paths}
        fill(tmp_path, 6_000, commit=True)
        for path, tag in tags.items():
            assert client.get(path, headers={"If-None-Match": tag}).status_code == 200, path


def test_recent_goes_by_the_clock(client: httpx.Client) -> None:
    assert rows(client.get("/v1/trades/recent")) == [], "the market's calendar lies months back"


def test_metrics_are_prometheus_text(client: httpx.Client) -> None:
    client.get("/v1/trades?limit=5")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'k2_http_requests_total{route="/v1/trades",status="200"}' in response.text
    assert 'k2_state{name="lag_messages"}' in response.text
    assert "k2_ready 1.0" in response.text


def test_metrics_tell_what_the_last_audit_counted(home: Path, reader: Reader) -> None:
    with running(reader, audit_of(home), audit_seconds=None) as client:
        before = client.get("/metrics").text
        audited = client.get("/v1/audit").json()
        after = client.get("/metrics").text
    assert 'k2_audit_state{state="never"} 1.0' in before
    assert "k2_audit_records{" not in before
    assert 'k2_audit_state{state="ok"} 1.0' in after
    assert 'k2_audit_state{state="never"} 0.0' in after
    for fate in ("committed", "duplicate", "retired", "shed", "absent", "lost", "in_flight"):
        count = float(sum(row[fate] for row in audited["data"]))
        assert f'k2_audit_records{{fate="{fate}"}} {count}\n' in after
    assert 'k2_audit_records{fate="committed"} 0.0' not in after
