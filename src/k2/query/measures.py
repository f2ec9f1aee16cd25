"""The part of the facade that measures: bars, aggregates, joins, and what is measured on these."""

from collections.abc import Sequence

from k2.query.answer import Answer
from k2.query.asking import Asking
from k2.query.join import JoinWanted
from k2.query.joining import answer_join, answer_markouts, answer_spreads
from k2.query.markouts import MarkoutsWanted
from k2.query.measured import (
    AggregationsAsked,
    BarsAsked,
    answer_aggregations,
    answer_bars,
    answer_bbo,
)
from k2.query.selection import Past, Selection
from k2.query.spreads import SpreadsWanted
from k2.query.stopping import limited


class Measures:
    """Methods of `k2.query.Reader`, which says what their parameters mean and what they raise."""

    _asking: Asking

    def bars(
        self,
        selection: Selection,
        interval: str,
        *,
        kind: str = "time",
        all_trades: bool = False,
        fill: bool = False,
        consolidated: bool = False,
        session: str = "all",
        adjusted: str = "none",
        last: int | None = None,
        as_of: str | None = None,
        as_known_at: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Bars: symbol, exchange, start, open, high, low, close, volume, trade_count, vwap,
        complete.

        `interval` is a number and s, m, h or d (`1m`); `last` keeps the newest bars of each symbol
        and exchange. `start` is when the interval begins, UTC; a day begins at midnight where it
        is traded. `complete` is false where a gap touches the interval that is not filled by now.
        With `fill`, intervals without trades are shown, and `state` says of each whether it was
        traded, empty, or unknown. `consolidated` makes one bar of all exchanges, and names them.
        Of `kind` tick, volume or dollar, `interval` is what closes a bar (see `k2.query.counted`);
        such bars have an `end`, and are not `complete` before they are full. `session` of regular
        leaves out trades outside the declared sessions (see `k2.query.sessions`). `adjusted` by
        splits, or by all, makes prices of other days compare (see `k2.query.adjust`).
        """
        asked = BarsAsked(interval, kind, all_trades, fill, last, consolidated, session, adjusted)
        with limited(timeout):
            return answer_bars(self._asking, selection, asked, Past(as_of, as_known_at))

    def aggregate(
        self,
        selection: Selection,
        metrics: Sequence[str],
        interval: str,
        *,
        all_trades: bool = False,
        bin_size: str | None = None,
        session: str = "all",
        as_of: str | None = None,
        as_known_at: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Measures of the trades of each interval: symbol, exchange, start, their columns (see
        `k2.query.aggregations.METRICS`), complete. `bin_size` is the width of a price level.
        """
        asked = AggregationsAsked(tuple(metrics), interval, all_trades, bin_size, session)
        with limited(timeout):
            past = Past(as_of, as_known_at)
            return answer_aggregations(self._asking, selection, asked, past)

    def bbo(
        self,
        selection: Selection,
        *,
        last: int | None = None,
        as_of: str | None = None,
        as_known_at: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The best bid and offer over the exchanges of each symbol, after each quote that changes
        them: see `k2.query.bbo`. `last` keeps the newest of each symbol.
        """
        with limited(timeout):
            return answer_bbo(self._asking, selection, last, Past(as_of, as_known_at))

    def join(
        self,
        wanted: JoinWanted,
        selection: Selection,
        *,
        after: str | None = None,
        as_of: str | None = None,
        as_known_at: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Each record of the left kind with the one of the right that stood when it printed: the
        left's columns, then the right's (`joined_columns`), in the left's total order.

        The selection is of the left. A record of the right that was not known yet is not taken,
        unless the rule looks ahead. `after` is the `next` of the page before: of the same state.
        """
        with limited(timeout):
            past = Past(as_of, as_known_at)
            return answer_join(self._asking, wanted, selection, past, after)

    def spreads(
        self,
        wanted: SpreadsWanted,
        selection: Selection,
        *,
        as_of: str | None = None,
        as_known_at: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Quoted, effective and realised spreads of each interval: see `make_spreads`."""
        with limited(timeout):
            return answer_spreads(self._asking, wanted, selection, Past(as_of, as_known_at))

    def markouts(
        self,
        wanted: MarkoutsWanted,
        selection: Selection,
        *,
        as_of: str | None = None,
        as_known_at: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """How the market moved after trades, by side and horizon: see `make_markouts`."""
        with limited(timeout):
            return answer_markouts(self._asking, wanted, selection, Past(as_of, as_known_at))
