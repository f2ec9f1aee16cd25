"""Quotes for tests, split into files and a tail as trades are."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np

from k2.lake import definition
from k2.query.view import View
from tests.query.make import EXCHANGES, Files, Row, to_table, trade, view_of, write_file

COLUMNS = definition("quotes").arrow


def quote(
    symbol: str,
    when: datetime,
    bid: tuple[str, str] | None,
    ask: tuple[str, str] | None,
    *,
    exchange: str = "sim",
    offset: int = 0,
    **more: object,
) -> Row:
    """One quote as a row of the table: price and quantity of each side, None for an empty one."""
    row = trade(symbol, when, "1", exchange=exchange, offset=offset)
    for name in ("price", "quantity", "side", "price_forming"):
        del row[name]
    row["log_topic"] = row["log_topic"].replace(".trades.", ".quotes.")
    for side, of in (("bid", bid), ("ask", ask)):
        row[f"{side}_price"] = None if of is None else Decimal(of[0])
        row[f"{side}_quantity"] = None if of is None else Decimal(of[1])
    return {**row, **more}


def random_quotes(
    seed: int,
    count: int,
    *,
    symbols: Sequence[str],
    exchanges: Sequence[str],
    start: datetime,
    span: timedelta,
) -> list[Row]:
    """Quotes of few prices, many of them at once, some of empty sides."""
    r = np.random.default_rng(seed)
    instants = max(1, count // 2)
    rows = []
    for n in range(count):
        sides = [
            None
            if r.integers(6) == 0
            else (str(int(r.integers(8, 12))), f"{int(r.integers(1, 4))}.5")
            for _ in range(2)
        ]
        rows.append(
            quote(
                symbols[int(r.integers(len(symbols)))],
                start + span // instants * int(r.integers(instants)),
                *sides,
                exchange=exchanges[int(r.integers(len(exchanges)))],
                offset=n,
            )
        )
    return rows


def view_of_quotes(folder: Path, commits: Sequence[Sequence[Row]], tail: Sequence[Row]) -> View:
    """A view whose commits brought these rows, with this tail."""
    rows = [*(row for commit in commits for row in commit), *tail]
    refs = [write_file(folder, c, n, columns=COLUMNS) for n, c in enumerate(commits, 1) if c]
    return replace(
        view_of(folder, []),
        table="quotes",
        columns=COLUMNS,
        index=Files(tuple(refs)),
        sequence=len(commits),
        tail=to_table(tail, COLUMNS) if tail else None,
        exchanges={name: EXCHANGES[name] for name in sorted({row["exchange"] for row in rows})},
    )
