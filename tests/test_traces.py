"""Traces, as one who takes them by OpenTelemetry's protocol gets them."""

import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k2.errors import BadInput
from k2.traces import set_up_traces, step
from tests.cli.running import running, wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


class Collector:
    """Takes traces over HTTP and keeps each span with its service."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        spans = self.spans

        class Take(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/x-protobuf"
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    (service,) = (
                        each.value.string_value
                        for each in resource.resource.attributes
                        if each.key == "service.name"
                    )
                    spans.extend((service, s) for each in resource.scope_spans for s in each.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def named(self, service: str, name: str) -> list[Any]:
        return [span for of, span in list(self.spans) if (of, span.name) == (service, name)]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


def attributes(span: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }


@pytest.mark.slow
def test_records_and_questions_can_be_followed(collector: Collector, tmp_path: Path) -> None:
    settings = {"K2_HOME": str(tmp_path), "K2_TRACES": collector.url}
    for arguments in (["feed", "simulator:?rate=max&count=500"], ["ingest", "--until-caught-up"]):
        with running(*arguments, **settings) as run:
            assert run.process.wait(60) == 0, run.lines
    topic = "market.crypto.trades.simulated"
    sent = [attributes(span) for span in collector.named("k2-feed", f"send {topic}")]
    (commit,) = collector.named("k2-ingest", "commit trades")
    assert attributes(commit)["k2.commit"] == 1
    messages = sum(each["messaging.batch.message_count"] for each in sent)
    assert messages == attributes(commit)["k2.messages"] > 0
    assert commit.end_time_unix_nano > commit.start_time_unix_nano

    with running("serve", "--port", "0", **settings) as run:
        wait_for(lambda: run.says("K2 listens at"), run)
        listens = run.says(r"K2 listens at (\S+)")
        assert listens is not None
        question = urllib.request.Request(
            f"{listens[1]}/v1/trades?symbol=BTCUSDT",
            headers={"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Correlation-ID": "mine"},
        )
        with urllib.request.urlopen(question, timeout=30) as answer:
            assert answer.status == 200
        run.process.terminate()
        assert run.process.wait(30) is not None
    (asked,) = collector.named("k2-serve", "GET /v1/trades")
    assert asked.trace_id.hex() == TRACE
    assert asked.parent_span_id.hex() == CALLER
    about = attributes(asked)
    assert about["http.response.status_code"] == 200
    assert about["k2.correlation_id"] == "mine"
    queries = collector.named("k2-serve", "query")
    mine = [span for span in queries if span.parent_span_id == asked.span_id]
    assert mine
    assert all("select" in attributes(span)["db.query.text"].lower() for span in mine)


def test_without_them_a_step_is_nothing() -> None:
    with step("a", k2__table="trades") as traced:
        traced.tell("b", k2__commit=1)


def test_what_it_takes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(BadInput, match="OpenTelemetry is not installed") as told:
        set_up_traces("http://127.0.0.1:1/v1/traces", "k2-test")
    assert "k2-lakehouse[traces]" in str(told.value.hint)
