"""One view over history and tail: records, bars, joins, replays, time travel, evidence, SQL."""

from k2.query.answer import Answer
from k2.query.asof import Rule
from k2.query.bulk import Bulk
from k2.query.interval import parse_interval
from k2.query.join import JoinWanted
from k2.query.markouts import MarkoutsWanted
from k2.query.middles import Measuring
from k2.query.pins import Wish
from k2.query.play import Played
from k2.query.reader import Reader, open_reader
from k2.query.replay import Part, Replay, Replayed
from k2.query.rollup import RolledUp
from k2.query.selection import Condition, Past, Selection, parse_conditions
from k2.query.spreads import SpreadsWanted
from k2.query.stopping import cancelled_by
from k2.query.times import parse_span, parse_spans
from k2.query.weight import Heavy, at_most

__all__ = [
    "Answer",
    "Bulk",
    "Condition",
    "Heavy",
    "JoinWanted",
    "MarkoutsWanted",
    "Measuring",
    "Part",
    "Past",
    "Played",
    "Reader",
    "Replay",
    "Replayed",
    "RolledUp",
    "Rule",
    "Selection",
    "SpreadsWanted",
    "Wish",
    "at_most",
    "cancelled_by",
    "open_reader",
    "parse_conditions",
    "parse_interval",
    "parse_span",
    "parse_spans",
]
