"""Downloads of everything that matches: whole, in each format, slow and broken ones as well."""

import gzip
import io
import json
import socket
import time
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from k2.errors import Unavailable
from k2.query import Bulk, Reader, Selection
from tests.api.conftest import running
from tests.api.test_shape import check_error


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few records at a time, so that a download has many parts."""
    begin = Reader.bulk

    def fewer(self: Reader, *given: Any, **more: Any) -> Bulk:
        return begin(self, *given, **more, rows=700)

    monkeypatch.setattr(Reader, "bulk", fewer)


@pytest.mark.usefixtures("small")
def test_every_format_has_every_row(client: httpx.Client, reader: Reader) -> None:
    whole = reader.records("trades", Selection())
    ids = whole.table["trade_id"].to_pylist()
    assert len(ids) > 2_000
    found = client.get("/v1/export/trades").json()
    assert [row["trade_id"] for row in found["data"]] == ids
    assert found["success"] is True
    assert found["meta"]["rows"] == len(ids)
    assert found["meta"]["snapshots"] == whole.meta["snapshots"]
    assert found["pagination"] == {"limit": None, "next": None}
    for name in ("ndjson", "csv", "arrow", "parquet"):
        response = client.get("/v1/export/trades", params={"format": name})
        assert response.headers["transfer-encoding"] == "chunked"
        disposition = response.headers["content-disposition"]
        assert disposition == f'attachment; filename="trades.{name.replace("arrow", "arrows")}"'
        if name == "ndjson":
            rows = [json.loads(line) for line in response.text.splitlines()]
            assert rows == found["data"]
        elif name == "csv":
            table = pa.csv.read_csv(
                io.BytesIO(response.content),
                convert_options=pa.csv.ConvertOptions(column_types={"trade_id": pa.string()}),
            )
            assert table["trade_id"].to_pylist() == ids
        elif name == "arrow":
            stream = pa.ipc.open_stream(response.content)
            assert orjson.loads(stream.schema.metadata[b"k2.meta"])["offsets"]
            assert stream.read_all().equals(whole.table)
        else:
            table = pq.read_table(io.BytesIO(response.content))
            assert table.equals(whole.table)


@pytest.mark.usefixtures("small")
def test_a_selection_its_fields_and_where_to_go_on(client: httpx.Client, symbol: str) -> None:
    asked: dict[str, Any] = {"symbol": [symbol, "none such"], "fields": ["trade_id", "price"]}
    rows = client.get("/v1/export/trades", params=asked).json()["data"]
    assert list(rows[0]) == ["trade_id", "price"]
    arrow = client.get("/v1/export/trades", params={**asked, "format": "arrow"}).content
    reader = pa.ipc.open_stream(arrow)
    first, told = reader.read_next_batch_with_custom_metadata()
    after = told[b"k2.position"].decode()
    rest = client.get("/v1/export/trades", params={**asked, "after": after}).json()["data"]
    assert rows[first.num_rows :] == rest
    assert rest


def test_what_is_asked_in_vain_is_an_error(client: httpx.Client) -> None:
    check_error(client.get("/v1/export/bars"), 404, "NOT_FOUND")
    response = client.get("/v1/export/trades", params={"fields": "colour"})
    assert "colour" in check_error(response, 422, "VALIDATION_ERROR")["message"]
    response = client.get("/v1/export/trades", params={"limit": 5})
    check_error(response, 422, "VALIDATION_ERROR")
    response = client.get("/v1/export/trades", params={"after": "x"})
    check_error(response, 422, "VALIDATION_ERROR")
    nothing = client.get("/v1/export/quotes", params={"symbol": "none such", "format": "csv"})
    assert nothing.text.startswith("symbol,exchange,timestamp")
    assert nothing.text.count("\n") == 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_text_is_compressed_for_who_takes_it(client: httpx.Client, coding: str) -> None:
    def raw(path: str, **asked: Any) -> tuple[bytes, httpx.Headers]:
        headers = {"Accept-Encoding": asked.pop("accept", coding)}
        with client.stream("GET", path, params=asked, headers=headers) as response:
            return b"".join(response.iter_raw()), response.headers

    plain, headers = raw("/v1/export/trades", format="csv", accept="identity")
    assert "content-encoding" not in headers
    small, headers = raw("/v1/export/trades", format="csv")
    assert headers["content-encoding"] == coding
    assert "Accept-Encoding" in headers["vary"]
    assert len(small) < len(plain) / 3
    assert opened(small, coding) == plain
    # Answers of one piece as well, where that is worth it.
    page = {"format": "ndjson", "limit": "2000"}
    plain, _ = raw("/v1/trades", **page, accept=f"{coding};q=0")
    small, headers = raw("/v1/trades", **page)
    assert headers["content-encoding"] == coding
    assert opened(small, coding) == plain
    for asked in ({"format": "json", "limit": "1"}, {"format": "arrow", "limit": "2000"}):
        _, headers = raw("/v1/trades", **asked)
        assert "content-encoding" not in headers


def opened(small: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return gzip.decompress(small)
    return pa.CompressedInputStream(pa.BufferReader(small), "zstd").read()


@pytest.mark.usefixtures("small")
def test_a_download_that_breaks_does_not_look_whole(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, left = Bulk.read, [2]

    def breaks(self: Bulk, timeout: float | None = None) -> pa.Table | None:
        left[0] -= 1
        if left[0] < 0:
            raise Unavailable("a fault that the test makes")
        return read(self, timeout)

    monkeypatch.setattr(Bulk, "read", breaks)
    with running(reader, dict, audit_seconds=None) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/v1/export/trades", params={"format": "csv"})
        assert client.get("/health/live").status_code == 200


@pytest.mark.usefixtures("small")
def test_who_does_not_read_is_waited_for_and_who_leaves_is_let_go(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, count = Bulk.read, [0]

    def again(self: Bulk, timeout: float | None = None) -> pa.Table | None:
        # A market without an end: as much as anybody reads.
        count[0] += 1
        table = read(self, timeout)
        if table is None:
            self._key = None
            self._open()
            table = read(self, timeout)
        return table

    monkeypatch.setattr(Bulk, "read", again)
    with running(reader, dict, audit_seconds=None) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as reading:
            reading.sendall(b"GET /v1/export/trades?format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert reading.recv(1000).startswith(b"HTTP/1.1 200")
            steady(count)
            held = count[0]
            # It goes on once somebody reads again.
            got = 0
            while count[0] < held + 20:
                got += len(reading.recv(1 << 20))
            steady(count)
        # The socket is closed: nothing more is read for it, and its place is free.
        steady(count)
        assert "k2_http_streams 0.0" in client.get("/metrics").text


def steady(count: list[int]) -> None:
    """Wait until nothing is read any more: half a second without."""
    end = time.monotonic() + 20
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < end, "it reads on though nobody takes it"
        if count[0] != seen:
            seen, since = count[0], time.monotonic()
        time.sleep(0.02)
