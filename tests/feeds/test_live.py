"""Live feeds against a small venue on loopback: holes, faults, restarts, the venue's cut-off."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from k2.feeds import open_feed
from k2.feeds.live.feed import LiveFeed
from tests.feeds.venue import Venue, answer_of, opened, quote, trade
from tests.servers.certificates import make_certificates

SECONDS = 20


class Followed:
    """A feed that is read until what a test waits for has come."""

    def __init__(self, feed: LiveFeed) -> None:
        self.feed = feed
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def read(self) -> None:
        began = time.monotonic()
        for records in self.feed.read():
            self.rows.setdefault(records.kind, []).extend(records.table.to_pylist())
        self.slowest = time.monotonic() - began

    def until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, f"never {what}; health {self.feed.health()}"
            self.read()

    def ids(self) -> list[int]:
        return [int(row["trade_id"]) for row in self.rows.get("trades", [])]

    def until_ids(self, *numbers: int) -> None:
        self.until(lambda: sorted(self.ids()) == sorted(numbers), f"{numbers}: {self.ids()}")

    def gaps(self, kind: str) -> list[tuple[Any, ...]]:
        names = ("symbol", "first_missing", "last_missing", "cause")
        rows = self.rows.get("gaps", [])
        return [tuple(row[n] for n in names) for row in rows if row["kind"] == kind]


@pytest.fixture
def venue() -> Iterator[Venue]:
    with opened() as venue:
        yield venue


@contextmanager
def followed(venue: Venue, more: str = "", position: str | None = None) -> Iterator[Followed]:
    connections = len(venue.sockets)
    feed = open_feed(f"binance:BTCUSDT?{venue.options}{more}", position, lambda: datetime.now(UTC))
    assert isinstance(feed, LiveFeed)
    try:
        found = Followed(feed)
        found.until(lambda: len(venue.sockets) > connections, "subscribed")
        found.until(lambda: feed.health().connected == 1, "acknowledged")
        yield found
    finally:
        feed.close()


def test_what_was_missed_while_cut_off_is_filled_once(venue: Venue) -> None:
    with followed(venue) as feed:
        venue.trades(1, 2, 3)
        venue.send(quote(7))
        feed.until_ids(1, 2, 3)
        venue.sockets[0].close()
        venue.past["BTCUSDT"] += [4, 5, 6]
        feed.until(lambda: len(venue.sockets) == 2, "connected again")
        venue.trades(7, 8)
        venue.send(quote(9))
        feed.until_ids(*range(1, 9))
        feed.until(lambda: len(feed.rows.get("quotes", [])) == 2, "two quotes")
        assert feed.gaps("trades") == []
        # Quotes cannot be had again: their hole is told by its times.
        assert feed.gaps("quotes") == [("BTCUSDT", None, None, "disconnect")]
        (gap,) = feed.rows["gaps"]
        times = [row["timestamp"] for row in feed.rows["quotes"]]
        assert [gap["from_timestamp"], gap["to_timestamp"]] == times
        assert feed.feed.health().reconnects == 1


def test_a_restarted_feed_fills_the_time_it_was_away(venue: Venue) -> None:
    with followed(venue) as feed:
        venue.trades(1, 2)
        venue.send(quote(1))
        feed.until_ids(1, 2)
        feed.until(lambda: "quotes" in feed.rows, "the quote, which the position tells of")
        position = feed.feed.position()
    venue.past["BTCUSDT"] += range(3, 2501)
    with followed(venue, position=position) as feed:
        # A quiet market: no live trade tells that there were others.
        feed.until_ids(*range(3, 2501))
        assert feed.ids() == sorted(feed.ids())
        venue.send(quote(5))
        feed.until(lambda: feed.gaps("quotes") != [], "told of the quotes")
    assert '"trades":{"BTCUSDT":[2500,' in feed.feed.position()


def test_a_position_remembers_what_was_had_behind_a_hole(venue: Venue) -> None:
    venue.rest_faults = [answer_of(503)] * 50
    with followed(venue) as feed:
        venue.trades(1, 5, 6)
        feed.until_ids(1, 5, 6)
        position = feed.feed.position()
    assert position.endswith("[5,6]]}}")
    venue.rest_faults.clear()
    venue.past["BTCUSDT"] = [1, 2, 3, 4, 5, 6, 7]
    with followed(venue, position=position) as feed:
        feed.until_ids(2, 3, 4, 7)


def test_doubles_are_dropped_and_disorder_is_no_hole(venue: Venue) -> None:
    with followed(venue) as feed:
        venue.trades(1, 2, 2, 1, 4, 3, 5, 3)
        venue.send(quote(5), quote(5), quote(4), quote(6))
        feed.until_ids(1, 2, 3, 4, 5)
        feed.until(lambda: len(feed.rows.get("quotes", [])) == 3, "three quotes")
        assert [row["source_sequence"] for row in feed.rows["quotes"]] == [5, 4, 6]
        assert venue.requests == []
        assert feed.feed.health().open_holes == 0


def test_a_skipped_trade_is_filled_while_live_goes_on(venue: Venue) -> None:
    with followed(venue) as feed:
        venue.trades(1, 2)
        venue.past["BTCUSDT"] += [3, 4]
        venue.trades(5, 6)
        feed.until_ids(1, 2, 5, 6)
        feed.until_ids(*range(1, 7))
        assert feed.ids()[-2:] == [3, 4]
        assert "gaps" not in feed.rows


@pytest.mark.slow
def test_what_the_venue_no_longer_has_is_given_up_and_told(venue: Venue) -> None:
    with followed(venue) as feed:
        venue.trades(1, 2)
        venue.past["BTCUSDT"] += [5]
        venue.trades(7)
        feed.until_ids(1, 2, 5, 7)
        feed.until(lambda: len(feed.gaps("trades")) == 2, "given up")
        assert feed.gaps("trades") == [
            ("BTCUSDT", 3, 4, "unknown"),
            ("BTCUSDT", 6, 6, "unknown"),
        ]
        # Given up is not forgotten: it may come after all, once.
        venue.trades(4, 4)
        feed.until_ids(1, 2, 4, 5, 7)
        assert '"trades":{"BTCUSDT":[7,' in feed.feed.position()


def test_a_broken_message_harms_no_neighbour_on_the_wire(venue: Venue) -> None:
    with followed(venue) as feed:
        venue.trades(1)
        venue.send('{"e":"trade","s":"BTC', "")
        venue.sockets[0].send(b"\xff\x00")
        venue.trades(2)
        feed.until_ids(1, 2)
        feed.until(lambda: len(feed.rows.get("rejects", [])) == 3, "three rejects")
        raw = [row["raw"] for row in feed.rows["rejects"]]
        assert raw == [b'{"e":"trade","s":"BTC', b"", b"\xff\x00"]
        assert feed.feed.health().rejects == 3


@pytest.mark.slow
def test_retry_after_is_obeyed_by_both_interfaces(venue: Venue) -> None:
    venue.handshake_faults = [answer_of(429, Retry_After="1")]
    began = time.monotonic()
    with followed(venue) as feed:
        assert time.monotonic() - began >= 1
        venue.rest_faults = [answer_of(429, Retry_After="1"), answer_of(418, Retry_After="1")]
        venue.rest_faults += [answer_of(500), answer_of(200, "no JSON")]
        venue.trades(1)
        venue.past["BTCUSDT"] += [2]
        began = time.monotonic()
        venue.trades(3)
        feed.until_ids(1, 2, 3)
        assert time.monotonic() - began >= 2
        assert len(venue.requests) == 5


@pytest.mark.slow
def test_the_next_connection_is_open_before_the_cut_off(venue: Venue) -> None:
    with followed(venue, "&lifetime=1") as feed:
        number = 0
        while len(venue.sockets) < 4:
            number += 1
            both = venue.sockets[-2:]
            for socket in both:
                # The overlap: both connections bring the same.
                try:
                    venue.send(trade(number), quote(number), to=venue.sockets.index(socket))
                except Exception:  # noqa: BLE001 - the older one may be closed by now
                    assert socket is not venue.sockets[-1]
            venue.past.setdefault("BTCUSDT", []).append(number)
            feed.read()
            assert number < 10_000
        feed.until_ids(*range(1, number + 1))
        feed.until(lambda: len(feed.rows["quotes"]) == number, "all quotes, each once")
        assert "gaps" not in feed.rows
        assert feed.feed.health().reconnects == 0


def test_a_stream_that_went_silent_without_a_word_is_noticed(venue: Venue) -> None:
    with followed(venue, "&stale=0.5") as feed:
        venue.trades(1)
        feed.until_ids(1)
        # The market goes on, the connection is up, and nothing comes.
        venue.past["BTCUSDT"] += [2, 3]
        feed.until_ids(1, 2, 3)
        feed.until(lambda: len(venue.sockets) == 2, "replaced")
        venue.trades(4)
        feed.until_ids(1, 2, 3, 4)


def test_a_quiet_market_is_no_stale_stream(venue: Venue) -> None:
    with followed(venue, "&stale=0.2") as feed:
        venue.trades(1)
        feed.until(lambda: len(venue.requests) > 2, "looked")
        assert len(venue.sockets) == 1


@pytest.mark.slow
def test_a_refused_subscription_is_told_once_and_tried_again(
    venue: Venue, caplog: pytest.LogCaptureFixture
) -> None:
    good = venue.answer
    answers = iter([*['{"error":{"code":2,"msg":"Invalid"},"id":1}'] * 3])
    venue.answer = lambda asked: next(answers, None) or good(asked)
    with followed(venue) as feed:
        # The venue counts a connection after it has answered, which the feed may read before.
        venue.wait_for(4)
        assert len(venue.sockets) == 4
        venue.trades(1)
        feed.until_ids(1)
    told = [record.message for record in caplog.records if "refuses" in record.message]
    assert len(told) == 1
    assert "Invalid (code 2)" in told[0]


@pytest.mark.slow
def test_maintenance_is_the_cause_that_is_told(venue: Venue) -> None:
    with followed(venue) as feed:
        venue.trades(1)
        venue.send(quote(1))
        feed.until_ids(1)
        venue.handshake_faults = [answer_of(503)] * 2
        venue.send({"e": "serverShutdown", "E": 1})
        venue.sockets[0].close()
        feed.until(lambda: len(venue.sockets) == 2, "connected again")
        venue.trades(3)
        venue.send(quote(3))
        feed.until(lambda: feed.gaps("trades") != [], "given up")
        assert feed.gaps("quotes") == [("BTCUSDT", None, None, "maintenance")]
        assert feed.gaps("trades") == [("BTCUSDT", 2, 2, "maintenance")]


def test_a_history_that_lags_behind_does_not_hide_why_a_trade_is_missing(venue: Venue) -> None:
    with followed(venue) as feed:
        venue.trades(1)
        feed.until_ids(1)
        asked = len(venue.requests)
        venue.sockets[0].close()
        feed.until(lambda: len(venue.requests) > asked, "asked what was missed")
        # The answer was that there is nothing newer: it has to be taken before the next trade.
        for _ in range(10):
            feed.read()
        venue.trades(3, 4)
        feed.until(lambda: feed.gaps("trades") != [], "given up")
        venue.trades(6)
        feed.until(lambda: len(feed.gaps("trades")) == 2, "the second given up")
        causes = [("BTCUSDT", 2, 2, "disconnect"), ("BTCUSDT", 5, 5, "unknown")]
        assert feed.gaps("trades") == causes


def test_only_a_trusted_certificate_is_talked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_certificates(tmp_path)
    with opened(made.server) as venue:
        monkeypatch.setenv("SSL_CERT_FILE", str(made.stranger))
        url = f"binance:BTCUSDT?{venue.options}"
        feed = open_feed(url, None, lambda: datetime.now(UTC))
        assert isinstance(feed, LiveFeed)
        stranger = Followed(feed)
        stranger.until(lambda: "certificate verify failed" in caplog.text, "refused")
        feed.close()
        assert venue.sockets == []
        monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
        with followed(venue) as found:
            venue.past["BTCUSDT"] = [2]
            venue.trades(1, 3)
            found.until_ids(1, 2, 3)


def test_a_read_does_not_block(venue: Venue) -> None:
    with followed(venue) as feed:
        took = []
        for _ in range(20):
            feed.read()
            took.append(feed.slowest)
        assert sorted(took)[10] < 0.1
