"""Frames of a venue to rows, as the tests of live feeds need them."""

import json
from collections.abc import Container, Iterable
from datetime import datetime
from typing import Any

from k2.feeds.live.batch import Batch
from k2.feeds.live.columns import Origin
from k2.feeds.live.venue import Body, Frame, Get, Parsed, Parser, parse_frames

RECEIVED = 1_767_600_001_000_000
"""Microseconds: the first frame came at 2026-01-05T08:00:01Z, each next one a microsecond later."""


def read_frames(
    parser: Parser,
    *messages: str | bytes | dict[str, Any],
    known: Container[str] | None = None,
) -> Parsed:
    """What the messages say, one after the other."""
    out = Parsed(known)
    frames = [Frame(1, RECEIVED + n, _bytes(message)) for n, message in enumerate(messages)]
    parse_frames(parser, frames, out)
    return out


def rows(parsed: Parsed, kind: str, *names: str) -> list[tuple[Any, ...]]:
    """Columns of the records of a kind, times and decimals as text."""
    batch = Batch(
        parsed.trades,
        parsed.trade_frames,
        parsed.quotes,
        parsed.quote_frames,
        rejects=parsed.rejects,
    )
    for records in batch.records(Origin("venue", "venue"), RECEIVED):
        records.table.validate(full=True)
        if records.kind == kind:
            columns = [records.table[name].to_pylist() for name in names]
            return [tuple(map(_shown, row)) for row in zip(*columns, strict=True)]
    return []


def rest(answers: Iterable[Any], requests: list[tuple[str, dict[str, str]]]) -> Get:
    """A REST interface that gives these answers, one after the other, and notes what was asked."""
    left = iter(answers)

    def get(path: str, parameters: Any, headers: Any) -> Body:
        requests.append((path, dict(parameters)))
        answer = next(left)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Body(text.encode(), RECEIVED)

    return get


def _bytes(message: str | bytes | dict[str, Any]) -> bytes:
    if isinstance(message, bytes):
        return message
    return (message if isinstance(message, str) else json.dumps(message)).encode()


def _shown(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%H:%M:%S.%f")
    return format(value.normalize(), "f") if hasattr(value, "normalize") else value
