"""K2's own reader, as a server has it: with partial bars, the newest rows of what is asked for in
memory, decoded copies of files that are asked for again and again, and the tail followed; but no
answer is kept, so that each is worked out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa

from bench.questions import DAY_US, Bars, Beside, Extents, Question, Records
from k2.query import JoinWanted, Reader, Selection, open_reader

TITLE: Final = "K2"
NEEDS: Final = "k2"
NOTE: Final = (
    "K2 works out each answer anew: what its server keeps of answers is off here, not in serving"
)
_HOT_ROWS: Final = 200_000
_DECODED_BYTES: Final = 512_000_000
"""What a server has by default."""
_EXTENTS: Final = """SELECT symbol, min(timestamp) AS first_timestamp,
    max(timestamp) AS last_timestamp, count(*) AS {kind} FROM {kind} GROUP BY symbol"""


def open_engine(home: Path) -> "Lakehouse":
    """K2 over the home itself: nothing is loaded."""
    reader = open_reader(home, follow=True, hot_rows=_HOT_ROWS, decoded_bytes=_DECODED_BYTES)
    reader.roll_up()
    return Lakehouse(reader)


class Lakehouse:
    """See `port.Engine`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def asking(self, question: Question) -> Callable[[], pa.Table]:
        """The reader's own methods, and their tables."""
        reader = self._reader
        match question:
            case Records():
                of = question
                selection = Selection(of.symbols, start=of.start, end=of.end)
                fields = () if of.every_column else of.columns
                return lambda: (
                    reader.records(
                        of.kind, selection, last=of.last, limit=of.limit, fields=fields
                    ).table
                )
            case Bars():
                selection = Selection(question.symbols, start=question.start, end=question.end)
                interval = "1d" if question.width_us == DAY_US else "1m"
                return lambda: reader.bars(selection, interval).table
            case Beside():
                selection = Selection((question.symbol,), start=question.start, end=question.end)
                wanted = JoinWanted(fields=question.columns)
                return lambda: reader.join(wanted, selection).table
            case Extents(kinds=(kind,)):
                sql = _EXTENTS.format(kind=kind)
                return lambda: reader.sql(sql).table
            case Extents():
                return lambda: reader.symbols().table

    def to_table(self, answer: pa.Table, question: Question) -> pa.Table:
        """Without what others do not tell, such as whether a bar is complete."""
        return answer.select(question.columns)

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()
