"""Every endpoint over the whole route table: one envelope, one error shape."""

from typing import Any

import httpx
import pytest

from k2.api import create_app
from k2.query import Reader


class Nothing(Reader):
    """A reader that is never asked: enough to list the routes."""

    def __init__(self) -> None:
        pass


def operations() -> list[tuple[str, str]]:
    paths = create_app(Nothing(), dict, audit_seconds=None).openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


OPERATIONS = operations()
TABLES = [
    (m, p)
    for m, p in OPERATIONS
    if "health" not in p and p not in ("/metrics", "/v1/status", "/v1/audit", "/v1/degradation")
]
OTHERS = ("/metrics", "/v1/stream")
"""What answers in a format of its own."""
QUERIES = {
    path: {"symbol": "?"}
    for path in ("/v1/bars/{interval}", "/v1/bbo", "/v1/spreads", "/v1/markouts")
} | {"/v1/diff": {"since": "2020-01-01T00:00:00Z"}}
PIN = {"name": "everything", "note": "all that was committed"}
"""A pin of the test home: to pin it again changes nothing."""
GHOST = {
    "symbol": "NONE",
    "exchange": "simulated",
    "timestamp": "2026-01-06T00:00:00Z",
    "action": "BUST",
    "trade_id": "none",
}
"""A correction of no trade that there is: it changes no answer."""
BODIES: dict[str, dict[str, Any]] = {
    "/v1/bars/batch": {"symbols": ["?"], "interval": "1m"},
    "/v1/corrections": {"corrections": [GHOST]},
    "/v1/aggregations": {"symbols": ["?"], "interval": "1m", "metrics": ["vwap"]},
    "/v1/pins": PIN,
}


def ask(client: httpx.Client, method: str, path: str, symbol: str, **more: Any) -> httpx.Response:
    """The request that each endpoint answers, with what `more` changes."""
    snapshot = client.get("/v1/snapshots").json()["data"][0]["snapshot_id"]
    url = path.format(
        interval="1m", symbol=symbol, date="2026-01-05", id=snapshot, name=PIN["name"]
    )
    if "pins" in path:
        assert client.post("/v1/pins", json=PIN).status_code == 200
    query = {name: value.replace("?", symbol) for name, value in QUERIES.get(path, {}).items()}
    if method == "POST" and "json" not in more and "content" not in more:
        body = {**BODIES.get(path, {})}
        if "symbols" in body:
            body["symbols"] = [symbol]
        more["json"] = body
    return client.request(method, url, params={**query, **more.pop("params", {})}, **more)


def check_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error's fields, after its shape, status and code were found right."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"success", "error", "meta"}
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "place", "found", "expected", "hint"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert body["meta"]["correlation_id"] == response.headers["x-correlation-id"]
    error: dict[str, Any] = body["error"]
    return error


def test_route_table_is_that_of_the_doors() -> None:
    assert set(OPERATIONS) == {
        ("GET", "/health"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/v1/trades"),
        ("GET", "/v1/quotes"),
        ("GET", "/v1/trades/recent"),
        ("GET", "/v1/corrections"),
        ("POST", "/v1/corrections"),
        ("POST", "/v1/trades/query"),
        ("POST", "/v1/quotes/query"),
        ("POST", "/v1/join"),
        ("GET", "/v1/spreads"),
        ("GET", "/v1/markouts"),
        ("GET", "/v1/summary/{symbol}/{date}"),
        ("GET", "/v1/symbols"),
        ("GET", "/v1/stats"),
        ("GET", "/v1/snapshots"),
        ("GET", "/v1/explain"),
        ("GET", "/v1/export/trades"),
        ("GET", "/v1/export/quotes"),
        ("GET", "/v1/diff"),
        ("GET", "/v1/pins"),
        ("POST", "/v1/pins"),
        ("GET", "/v1/pins/{name}"),
        ("POST", "/v1/pins/{name}/verify"),
        ("POST", "/v1/snapshots/{id}/query"),
        ("GET", "/v1/bars/{interval}"),
        ("POST", "/v1/bars/batch"),
        ("POST", "/v1/aggregations"),
        ("GET", "/v1/bbo"),
        ("POST", "/v1/replay"),
        ("GET", "/v1/stream"),
        ("GET", "/v1/audit"),
        ("GET", "/v1/rejected"),
        ("GET", "/v1/duplicates"),
        ("GET", "/v1/shed"),
        ("GET", "/v1/retired"),
        ("GET", "/v1/gaps"),
        ("GET", "/v1/degradation"),
        ("GET", "/v1/status"),
    }


@pytest.mark.parametrize(("method", "path"), [o for o in OPERATIONS if o[1] not in OTHERS])
def test_answers_come_in_the_envelope(
    client: httpx.Client, symbol: str, method: str, path: str
) -> None:
    response = ask(client, method, path, symbol)
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body) == {"success", "data", "meta", "pagination"}
    assert body["success"] is True
    assert isinstance(body["data"], list)
    assert set(body["pagination"]) == {"limit", "next"}
    assert body["meta"]["correlation_id"] == response.headers["x-correlation-id"]
    empty = ("/v1/trades/recent", "/v1/shed", "/v1/retired", "/v1/gaps", "/v1/degradation")
    if path not in empty and (method, path) != ("GET", "/v1/corrections"):
        assert body["data"], "the test home has rows for every other endpoint"


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_wrong_method(client: httpx.Client, symbol: str, method: str, path: str) -> None:
    response = ask(client, "DELETE", path, symbol)
    error = check_error(response, 405, "METHOD_NOT_ALLOWED")
    assert method in response.headers["allow"]
    assert method in error["expected"]


@pytest.mark.parametrize(("method", "path"), [o for o in TABLES if o[0] == "GET"])
def test_unknown_parameter_is_refused_not_ignored(
    client: httpx.Client, symbol: str, method: str, path: str
) -> None:
    response = ask(client, method, path, symbol, params={"lmit": "5"})
    assert check_error(response, 422, "VALIDATION_ERROR")["place"] == "query.lmit"


@pytest.mark.parametrize(("method", "path"), [o for o in TABLES if o[0] == "POST"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"lmit": 5}', b'{"symbols": "A"}', b"[" * 100_000,
     b'{"symbols": [null]}', b'{"symbols": ["\\ud800"]}', b'{"limit": "5"}', b'{"limit": true}',
     b'{"limit": 1' + b"0" * 5_000 + b"}", b'{"min_price": NaN}', b'{"symbols": ["a\\u0000"]}'],
    ids=lambda content: content[:16].decode("latin-1"),
)  # fmt: skip
def test_bodies_that_cannot_be(
    client: httpx.Client, symbol: str, method: str, path: str, content: bytes
) -> None:
    check_error(ask(client, method, path, symbol, content=content), 422, "VALIDATION_ERROR")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_bytes_that_are_no_text(client: httpx.Client, symbol: str, method: str, path: str) -> None:
    url = path.format(interval="1m", symbol=symbol, date="2026-01-05", id="1", name="x")
    for query in ("symbol=%ff", "symbol=%00", "%c3%28=1"):
        error = check_error(client.request(method, f"{url}?{query}"), 422, "VALIDATION_ERROR")
        assert "query" in error["place"]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_large_bodies_are_not_read(
    client: httpx.Client, symbol: str, method: str, path: str
) -> None:
    response = ask(client, method, path, symbol, content=b"{" * 1_000_001)
    check_error(response, 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_foreign_host_is_refused(client: httpx.Client, symbol: str, method: str, path: str) -> None:
    for host in ("rebound.example", "rebound.example:8642", "127.0.0.1.rebound.example", ""):
        response = ask(client, method, path, symbol, headers={"Host": host})
        check_error(response, 403, "FORBIDDEN")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8642"])
def test_own_host_is_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/health/live", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/trades/", "/v1/replays", "/%2e%2e/app.js"]
)
def test_no_such_page(client: httpx.Client, path: str) -> None:
    check_error(client.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/v1/trades?limit=0", "query.limit"),
        ("/v1/trades?limit=10001", "query.limit"),
        ("/v1/trades?limit=null", "query.limit"),
        ("/v1/trades?limit=" + "9" * 5_000, "query.limit"),
        ("/v1/trades?last=-1", "query.last"),
        ("/v1/trades?last=1&after=x", "query.last"),
        ("/v1/trades?symbol=", "query.symbol"),
        ("/v1/trades?symbol=" + "x" * 300, "query.symbol"),
        ("/v1/trades?exchange=a%20b", "query.exchange"),
        ("/v1/trades?start_time=yesterday", "start_time"),
        ("/v1/trades?end_time=2026-01-05T00:00:00", "end_time"),
        ("/v1/trades?format=xml", "query.format"),
        ("/v1/trades/recent?window_minutes=0", "query.window_minutes"),
        ("/v1/bars/1m?symbol=X&fill=maybe", "query.fill"),
        ("/v1/bars/1m", "query.symbol"),
        ("/v1/bars/1m?symbol=X&kind=renko", "query.kind"),
        ("/v1/summary/X/2026-13-45", "path.date"),
    ],
)
def test_parameters_that_cannot_be(client: httpx.Client, path: str, place: str) -> None:
    assert check_error(client.get(path), 422, "VALIDATION_ERROR")["place"] == place


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v1/trades?after=x", "page"),
        ("/v1/bars/7m?symbol=X", "interval"),
        ("/v1/bars/1m?symbol=X&kind=tick", "no size of tick bars"),
        ("/v1/bars/500?symbol=X", "interval"),
        ("/v1/bars/500?symbol=X&kind=tick&fill=true", "take no fill"),
        ("/v1/bars/%F0%9F%99%82?symbol=X", "interval"),
    ],
)
def test_what_the_query_room_refuses(client: httpx.Client, path: str, word: str) -> None:
    assert word in check_error(client.get(path), 422, "VALIDATION_ERROR")["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/trades?as_of=no-such-tag",
        "/v1/summary/NOTHING/2026-01-05",
        "/v1/summary/A%2FB/2026-01-05",
        "/v1/summary/it's/2026-01-05",
        "/v1/snapshots?table=nothing",
    ],
)
def test_what_is_not_there(client: httpx.Client, path: str) -> None:
    check_error(client.get(path), 404, "NOT_FOUND")


def test_correlation_id_is_taken_over_or_made(client: httpx.Client) -> None:
    given = client.get("/health/live", headers={"X-Correlation-ID": "order-7.a"})
    assert given.headers["x-correlation-id"] == "order-7.a"
    assert given.json()["meta"]["correlation_id"] == "order-7.a"
    for bad in ("two words", "x" * 200, "<script>"):
        made = client.get("/health/live", headers={"X-Correlation-ID": bad})
        assert made.headers["x-correlation-id"] not in ("", bad)


def test_sql_in_every_parameter_finds_nothing_and_breaks_nothing(client: httpx.Client) -> None:
    before = client.get("/v1/trades?last=1").json()["data"]
    sql = "x'; DROP TABLE trades; --"
    assert client.get("/v1/trades", params={"symbol": sql}).json()["data"] == []
    for name in ("exchange", "start_time", "after", "as_of", "format", "limit"):
        assert client.get("/v1/trades", params={name: sql}).status_code in (404, 422)
    response = client.post("/v1/trades/query", json={"symbols": [sql], "fields": ["price"]})
    assert response.json()["data"] == []
    response = client.post("/v1/trades/query", json={"fields": ["price from trades; --"]})
    check_error(response, 422, "VALIDATION_ERROR")
    assert client.get("/v1/trades?last=1").json()["data"] == before
