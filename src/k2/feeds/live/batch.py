"""What one `read` of a live feed gives: rows that are news, rejects and gaps, as records."""

from dataclasses import dataclass, field

from k2.feeds.live import columns
from k2.feeds.live.columns import Gap, Origin
from k2.feeds.live.venue import Frame, Quote, Reject, Trade
from k2.feeds.port import Records


@dataclass
class Batch:
    """Rows beside their frames, and what else was met."""

    trades: list[Trade] = field(default_factory=list)
    trade_frames: list[Frame] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    quote_frames: list[Frame] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def records(self, origin: Origin, now: int) -> list[Records]:
        """Tables of what there is; `now` (microseconds UTC) is when gaps were noticed."""
        tables = {}
        rejects = list(self.rejects)
        if self.trades:
            tables["trades"] = columns.trades_table(self.trades, self.trade_frames, origin, rejects)
        if self.quotes:
            tables["quotes"] = columns.quotes_table(self.quotes, self.quote_frames, origin, rejects)
        if rejects:
            tables["rejects"] = columns.rejects_table(rejects, origin)
        if self.gaps:
            tables["gaps"] = columns.gaps_table(self.gaps, now, origin)
        return [
            Records(kind, origin.exchange, table)
            for kind, table in tables.items()
            if table.num_rows
        ]
