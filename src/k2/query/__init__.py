"""One view over history and tail: records, bars, joins, time travel, read-only SQL."""

from k2.query.answer import Answer
from k2.query.asof import Rule
from k2.query.join import JoinWanted
from k2.query.reader import Reader, open_reader
from k2.query.rollup import RolledUp
from k2.query.selection import Condition, Selection, parse_conditions
from k2.query.stopping import cancelled_by

__all__ = [
    "Answer",
    "Condition",
    "JoinWanted",
    "Reader",
    "RolledUp",
    "Rule",
    "Selection",
    "cancelled_by",
    "open_reader",
    "parse_conditions",
]
