"""What the table of the benchmarks rests on: answers compared, aims held, clients that count."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bench.agree import check_same
from bench.clients import How, ask
from bench.engines import engine, engine_names, why_not
from bench.engines.apart import Apart
from bench.home import settled
from bench.lines import Aim, Line
from bench.market import DAYS
from bench.questions import Bars, Beside, Records, questions
from bench.report import Timing
from bench.unsettled import merged_seconds

from k2.errors import Broken

_START = datetime(2026, 1, 5, tzinfo=UTC)
_OTHERS = [name for name in engine_names() if name != "k2" and why_not(name) is None]


# ---------------------------------------------------------------- engines


def test_k2_comes_first_and_duckdb_is_always_among_the_others() -> None:
    assert engine_names()[0] == "k2"
    assert {"native", "parquet"} <= set(_OTHERS)
    for name in engine_names():
        reason = why_not(name)
        assert reason is None or engine(name).NEEDS in reason


@pytest.mark.slow
def test_every_engine_gives_k2s_answers(tmp_path: Path) -> None:
    settled(tmp_path, 20_000)
    with closing(engine("k2").open_engine(tmp_path)) as ours:
        for name in _OTHERS:
            answered = set()
            with closing(engine(name).open_engine(tmp_path)) as other:
                for what, question in questions(DAYS[1]).items():
                    mine = ours.to_table(ours.asking(question)(), question)
                    assert mine.num_rows, what
                    if (ask_it := other.asking(question)) is not None:
                        check_same(what, name, question, mine, other.to_table(ask_it(), question))
                        answered.add(what)
            assert len(answered) >= len(questions()) - 1, name


@pytest.mark.slow
def test_an_engine_that_fails_in_its_process_is_an_error_here(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="read_parquet"):
        Apart("native", tmp_path)


@pytest.mark.slow
def test_the_table_has_every_part_and_names_every_engine() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "table", "--quick", "--rows", "20000"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = [
        *questions(),
        "unsettled",
        "320 files",
        "the file bare",
        "a pool",
        "no answers kept",
        "memory of the",
    ]
    titles = [engine(name).TITLE for name in engine_names()]
    assert [text for text in [*parts, *titles, "aims"] if text not in done.stdout] == []


# ---------------------------------------------------------------- agreement


def _records(count: int = 5) -> pa.Table:
    return pa.table(
        {
            "symbol": pa.array(["A"] * count).dictionary_encode(),
            "timestamp": pa.array(
                [_START + timedelta(seconds=n) for n in range(count)], pa.timestamp("us", "UTC")
            ),
            "price": pa.array([Decimal(n) / 4 for n in range(count)], pa.decimal128(18, 8)),
            "side": pa.array(["BUY", None] * count)[:count],
        }
    )


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_the_same_rows_agree_in_whatever_types() -> None:
    mine = _records()
    theirs = _with(mine, "symbol", mine["symbol"].cast(pa.large_string()))
    theirs = _with(theirs, "timestamp", mine["timestamp"].cast(pa.timestamp("ns")))
    theirs = _with(theirs, "price", mine["price"].cast(pa.float64()))
    check_same("last", "another", Records("trades"), mine, theirs)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("symbol", pa.array(["A", "A", "A", "B", "A"])),
        ("timestamp", pa.array([_START] * 5, pa.timestamp("us", "UTC"))),
        ("price", pa.array([Decimal(n) / 4 + Decimal("1e-8") * (n == 3) for n in range(5)])),
        ("price", pa.array([0.0, 0.25, 0.5, 0.750001, 1.0])),
        ("side", pa.array(["BUY", None, "BUY", "SELL", "BUY"])),
        ("side", pa.array(["BUY", None, None, None, "BUY"])),
    ],
)
def test_one_other_value_is_an_error_that_names_it(name: str, values: pa.Array) -> None:
    theirs = _with(_records(), name, values)
    with pytest.raises(Broken) as caught:
        check_same("last", "another", Records("trades"), _records(), theirs)
    assert f"another gives another {name}" in caught.value.message
    assert caught.value.place is not None
    assert caught.value.place.startswith("last, row ")


def test_a_row_more_or_in_another_place_is_an_error() -> None:
    mine = _records()
    with pytest.raises(Broken, match="number of rows"):
        check_same("last", "another", Records("trades"), mine, mine.slice(1))
    turned = mine.take(pa.array([1, 0, 2, 3, 4]))
    with pytest.raises(Broken):
        check_same("last", "another", Records("trades"), mine, turned)


def _bars(vwap: str) -> pa.Table:
    table = pa.table(
        {
            "symbol": ["A", "B"],
            "start": pa.array([_START] * 2, pa.timestamp("us", "UTC")),
            "volume": pa.array([Decimal(1), Decimal(2)], pa.decimal128(38, 8)),
        }
    )
    values = pa.array([Decimal(vwap), Decimal(5)]).cast(pa.decimal128(18, 8))
    return table.append_column("vwap", values)


def test_bars_agree_in_any_order_and_but_for_the_last_place_of_a_quotient() -> None:
    mine = _bars("36.12345679")
    check_same("bars", "another", Bars(), mine, _bars("36.12345678").take(pa.array([1, 0])))
    with pytest.raises(Broken, match="vwap"):
        check_same("bars", "another", Bars(), mine, _bars("36.1234"))


def test_some_quotes_of_a_join_may_be_others_but_no_trades() -> None:
    asked = Beside("A", _START, _START)
    mine = pa.table({"price": pa.array([1.0] * 2_000), "bid_price": pa.array([2.0] * 2_000)})
    numbers = pa.array(range(2_000))
    few, many = (
        _with(mine, "bid_price", pc.if_else(pc.less(numbers, count), 3.0, 2.0))
        for count in (40, 41)
    )
    check_same("join", "another", asked, mine, few)
    with pytest.raises(Broken, match="bid_price"):
        check_same("join", "another", asked, mine, many)
    other = _with(mine, "price", pc.if_else(pc.less(numbers, 1), 3.0, 1.0))
    with pytest.raises(Broken, match="another price"):
        check_same("join", "another", asked, mine, other)


# ---------------------------------------------------------------- lines


def test_a_line_is_held_against_the_quickest_of_its_peers() -> None:
    peers = {"slow": Timing(0.009, 0.010), "quick": Timing(0.004, 0.020)}
    at_most_2, below_1 = Aim("ratio", most=2), Aim("ratio", most=1)
    line = Line.of("last", Timing(0.006, 0.018), at_most_2, below_1, peers=peers)
    assert line.against is not None
    assert line.against[0] == "quick"
    assert line.value("ratio") == pytest.approx(1.5)
    assert line.value("tail") == pytest.approx(3.0)
    assert (line.is_held(at_most_2), line.is_held(below_1)) == (True, False)


def test_an_aim_without_a_figure_is_not_held() -> None:
    line = Line("memory", 800.0, unit="MiB")
    assert line.is_held(Aim("figure", most=800))
    assert not line.is_held(Aim("figure", least=801))
    assert not any(line.is_held(Aim(measure, most=1e9)) for measure in ("p99", "ratio", "tail"))


@pytest.mark.parametrize("seconds", [0, 1, 15, 16, 17, 255, 256, 39_600])
def test_files_are_as_merging_leaves_them(seconds: int) -> None:
    files: list[int] = []
    for _ in range(seconds):
        files.append(1)
        while files[-16:] == [files[-1]] * 16:
            files[-16:] = [sum(files[-16:])]
    assert merged_seconds(seconds) == files


# ---------------------------------------------------------------- clients


class _Counting(BaseHTTPRequestHandler):
    """Puts off each third request, and counts connections."""

    protocol_version = "HTTP/1.1"
    connections = 0
    requests = 0
    put_off = 0
    lock = threading.Lock()

    def setup(self) -> None:
        super().setup()
        with self.lock:
            type(self).connections += 1

    def do_GET(self) -> None:
        of = type(self)
        with self.lock:
            of.requests += 1
            busy = self.path == "/busy" and of.requests % 3 == 0
            of.put_off += busy
        self.send_response(404 if self.path == "/nothing" else 429 if busy else 200)
        self.send_header("Content-Length", "2")
        self.send_header("Retry-After", "0.001")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is told."""


@contextmanager
def _server() -> Iterator[tuple[str, type[_Counting]]]:
    counting = type("Counting", (_Counting,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), counting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", counting
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("how", ["each", "shared", "pool"])
def test_clients_connect_as_they_are_told(how: How) -> None:
    with _server() as (url, counting):
        found = ask(how, 4, 0.2, [f"{url}/a"])
        assert found.per_second > 0
        assert 0 < found.p50 <= found.p99
        assert found.put_off == 0
        # One more asks first, so that the server has it read.
        expected = {"each": counting.requests, "shared": 2, "pool": 5}[how]
        assert counting.connections == expected


def test_clients_that_are_put_off_ask_again_and_count_it() -> None:
    with _server() as (url, counting):
        found = ask("pool", 4, 0.2, [f"{url}/busy"])
        assert counting.put_off > 0
        assert abs(found.put_off - counting.put_off) <= 1
        assert found.per_second < counting.requests / 0.2


def test_a_wrong_answer_ends_the_clients() -> None:
    with _server() as (url, _), pytest.raises(subprocess.CalledProcessError):
        ask("pool", 2, 0.2, [f"{url}/nothing"])
