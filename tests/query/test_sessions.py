from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput, NotFound
from k2.query import Reader, Selection, open_reader
from k2.query.bars import BarsWanted, make_bars
from k2.query.counted import CountedWanted, make_counted, parse_size, settled
from k2.query.duckdb import DuckDB
from k2.query.interval import parse_interval
from k2.query.sessions import Sessions, read_sessions, trading_days
from tests.ingest.numbered import BEGAN, trades
from tests.journeys.home import open_home
from tests.query import plain, reference
from tests.query.make import EXCHANGES, Row, random_trades, split, trade, view_of
from tests.query.test_rollup import rolled

DECLARED = """
[ASX]
open = "10:00"
close = "16:00:30"
closed = ["2024-03-11"]
early = { "2024-03-08" = "14:10" }

[CME]                       # opens on the evening before its date
open = 17:00:00
close = "16:00"
days = ["mon", "tue", "wed", "thu", "fri"]
"""


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    path = tmp_path_factory.mktemp("declared") / "sessions.toml"
    path.write_text(DECLARED)
    return read_sessions(path)


def in_session(row: Row) -> bool:
    """Whether the trade is of a session as declared above, said once more by hand."""
    name, day = row["exchange"], row["exchange_date"]
    if name == "sim":
        return True
    if day.weekday() > 4 or (name, day) == ("ASX", date(2024, 3, 11)):
        return False
    local = row["timestamp"].astimezone(ZoneInfo(EXCHANGES[name].zone)).time()
    if name == "CME":
        return bool(local >= time(17) or local < time(16))
    close = time(14, 10) if day == date(2024, 3, 8) else time(16, 0, 30)
    return bool(time(10) <= local < close)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 10**6), max_size=3),
    interval=st.sampled_from(["15m", "4h", "1d"]),
)
def test_only_trades_of_sessions_count(
    engine: DuckDB, sessions: Sessions, seed: int, cuts: list[int], interval: str
) -> None:
    # Clocks change in Chicago on March 10th.
    begin = datetime(2024, 3, 6, tzinfo=UTC)
    names = ("sim", "ASX", "CME")
    rows = random_trades(seed, 300, exchanges=names, start=begin, span=timedelta(days=8), ties=1)
    *commits, tail = split(rows, cuts)
    left = [row for row in rows if in_session(row)]
    assert len(left) < len(rows)
    selection = Selection(sessions=sessions)
    width = parse_interval(interval)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        bars = make_bars(engine, view, selection, BarsWanted(width))
        newest = make_bars(engine, view, selection, BarsWanted(width, last=2))
        made = make_counted(engine, view, selection, CountedWanted(parse_size("tick", "3")))
    wanted = reference.bars(left, timedelta(microseconds=width.width_us))
    assert bars.to_pylist() == wanted
    assert settled(made, [], view.exchanges).to_pylist() == plain.counted(left, "tick", "3")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for bar in wanted:
        groups.setdefault((bar["symbol"], bar["exchange"]), []).append(bar)
    assert newest.to_pylist() == [bar for group in groups.values() for bar in group[-2:]]


def test_trading_days(sessions: Sessions) -> None:
    first, end = date(2024, 3, 7), date(2024, 3, 13)
    found = trading_days(sessions, {"ASX": EXCHANGES["ASX"]}, first, end)
    assert found["date"].to_pylist() == [date(2024, 3, 7), date(2024, 3, 8), date(2024, 3, 12)]
    assert found["open"].to_pylist()[0] == datetime(2024, 3, 6, 23, tzinfo=UTC)
    assert found["close"].to_pylist()[1] == datetime(2024, 3, 8, 3, 10, tzinfo=UTC)
    evening = trading_days(sessions, {"CME": EXCHANGES["CME"]}, first, end)
    # Winter time, and summer time from March 10th on.
    assert evening["open"].to_pylist()[0] == datetime(2024, 3, 6, 23, tzinfo=UTC)
    assert evening["open"].to_pylist()[2] == datetime(2024, 3, 10, 22, tzinfo=UTC)
    assert evening["close"].to_pylist()[2] == datetime(2024, 3, 11, 21, tzinfo=UTC)
    with pytest.raises(BadInput, match="no session of sim"):
        trading_days(sessions, {"sim": EXCHANGES["sim"]}, first, end)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with open_home(tmp_path) as home:
        # One an hour, from midnight on, on Monday and on Tuesday.
        for hour in (0, 10, 12, 20, 34):
            trades(home, [hour + 1], at=3600 * hour, happened=3600 * hour)
        with open_reader(tmp_path) as opened:
            yield opened


def test_questions_by_session(reader: Reader, tmp_path: Path) -> None:
    asked = Selection(("BTC",))
    with pytest.raises(BadInput, match="no sessions are declared"):
        reader.bars(asked, "1h", session="regular")
    with pytest.raises(BadInput, match="no such session"):
        reader.bars(asked, "1h", session="lunch")
    file = tmp_path / "sessions.toml"
    file.write_text('[simulated]\nopen = "10:00"\nclose = "14:00"\n')

    def hours(**more: Any) -> list[int]:
        found = reader.bars(asked, "1h", session="regular", **more)
        assert "only trades of regular sessions" in str(found.meta["notes"])
        return [(at - BEGAN) // timedelta(hours=1) for at in found.table["start"].to_pylist()]

    assert hours() == [10, 12, 34]
    # Nothing is expected overnight.
    assert hours(fill=True) == [10, 11, 12, 13, 34]
    assert hours(fill=True, last=3) == [12, 13, 34]
    assert hours(consolidated=True) == [10, 12, 34]
    average = reader.aggregate(asked, ["trade_count"], "1d", session="regular").table
    assert average["trade_count"].to_pylist() == [2, 1]
    bars = reader.bars(asked, "2", kind="tick", session="regular").table
    assert bars["trade_count"].to_pylist() == [2, 1]
    version = reader.bars(asked, "1h", session="regular").meta["sessions"]
    file.write_text('[simulated]\nopen = "10:00"\nclose = "14:00"\nclosed = ["2026-01-05"]\n')
    assert hours() == [34]
    assert reader.bars(asked, "1h", session="regular").meta["sessions"] != version
    assert reader.trading_days(["simulated"], date(2026, 1, 5), date(2026, 1, 7)).table[
        "date"
    ].to_pylist() == [date(2026, 1, 6)]
    with pytest.raises(NotFound):
        reader.trading_days(["LSE"], date(2026, 1, 5), date(2026, 1, 7))
    file.write_text('[LSE]\nopen = "10:00"\nclose = "14:00"\n')
    found = reader.bars(asked, "1h", session="regular")
    assert found.table.num_rows == 5
    assert "no session of simulated is declared" in str(found.meta["notes"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "cannot be read"),
        ("ASX = 1", "no table"),
        ("[ASX]", "no 'open'"),
        ('[ASX]\nopen = "10:00"', "no 'close'"),
        ('[ASX]\nopen = "10"\nclose = "x"', "time of day"),
        ('[ASX]\nopen = 10\nclose = "16:00"', "time of day"),
        ('[ASX]\nopen = "10:00Z"\nclose = "16:00"', "time of day"),
        ('[ASX]\nopen = "10:00"\nclose = "16:00"\nlunch = 1', "no 'lunch'"),
        ('[ASX]\nopen = "10:00"\nclose = "16:00"\ndays = ["mo"]', "days of the week"),
        ('[ASX]\nopen = "10:00"\nclose = "16:00"\nclosed = ["25.12."]', "no date"),
        ('[ASX]\nopen = "10:00"\nclose = "16:00"\nclosed = "2026-12-25"', "no list"),
        ('[ASX]\nopen = "10:00"\nclose = "16:00"\nearly = ["2026-12-24"]', "no table"),
    ],
)
def test_declarations_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "sessions.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=told) as error:
        read_sessions(path)
    assert str(path) in str(error.value.place)


@pytest.mark.parametrize("interval", ["1h", "1d"])
def test_roll_ups_do_not_stand_for_sessions(
    engine: DuckDB,
    sessions: Sessions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interval: str,
) -> None:
    monkeypatch.setattr("k2.query.rollup._GAIN", 0)
    # Every ten seconds around the close, which cuts a minute.
    close = datetime(2024, 3, 7, 5, tzinfo=UTC)
    rows = [
        trade("A", close + timedelta(seconds=10 * n), str(n + 99), exchange="ASX", offset=n)
        for n in range(-9, 9)
    ]
    view = rolled(engine, tmp_path, view_of(tmp_path, [rows]))
    wanted = BarsWanted(parse_interval(interval))
    assert sum(make_bars(engine, view, Selection(), wanted)["trade_count"].to_pylist()) == 18
    made = make_bars(engine, view, Selection(sessions=sessions), wanted)
    assert sum(made["trade_count"].to_pylist()) == 12
