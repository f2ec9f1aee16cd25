"""Which symbols are shed last under overload: a ranking by traded value, and the file of it."""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k2.cli.options import output_options, reader_of, settings_option
from k2.cli.show import Output, say
from k2.errors import BadInput, NotFound
from k2.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.ingest.ranking import Ranked
    from k2.query import Answer


def _ranking_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "--days", type=click.IntRange(1, 3650), default=7, metavar="N", help="Of the last N (7)."
    )(function)
    return click.option(
        "--exchange", "exchanges", multiple=True, metavar="NAME", help="Of these alone; repeatable."
    )(function)


@click.group("tiers", invoke_without_command=True)
@_ranking_options
@output_options
@settings_option
@click.pass_context
def command(
    context: click.Context,
    settings: Settings,
    output: Output,
    exchanges: tuple[str, ...],
    days: int,
) -> None:
    """Symbols by what they traded, and the tier that it gives: 1 is shed last, 3 first.

    Tier 1 are Bitcoin and Ether in every currency and the 20 largest of each exchange, tier 2 the
    next 80. `tier_now` is what holds now, by the file of tiers or without one. Values in several
    currencies are compared by what Bitcoin cost in each.
    """
    if context.invoked_subcommand is not None:
        return
    found = _rank(settings, exchanges, days)
    output.write(replace(found.answer, table=found.table(settings.overload.tiers)))
    if not found.ranked:
        say(f"nothing was traded in the last {days:,} days")


@command.command("write")
@_ranking_options
@click.option("--replace", "anew", is_flag=True, help="Where there is a file, write these anew.")
@click.option(
    "-o",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="In place of K2_TIERS.",
)
@settings_option
def write(
    settings: Settings,
    exchanges: tuple[str, ...],
    days: int,
    anew: bool,
    path: Path | None,
) -> None:
    """Write the file of tiers for you to edit; writers that run read it again.

    With --replace, tables of exchanges that are not written now stay as they are.
    """
    from k2.ingest.ranking import to_table, to_toml
    from k2.ingest.tiers import read_tiers

    path = path or settings.overload.tiers
    kept: dict[str, Any] = {}
    if path.exists():
        if not anew:
            raise BadInput(
                "there is a file of tiers already",
                place=str(path),
                hint="--replace writes it anew, without what was edited; -o names another",
            )
        read_tiers(path)
        kept = tomllib.loads(path.read_text("utf-8"))
    found = _rank(settings, exchanges, days)
    if not found.ranked:
        raise NotFound(
            f"nothing was traded in the last {days:,} days", hint="--days N looks further back"
        )
    tables = {exchange: to_table(ranked) for exchange, ranked in found.ranked.items()}
    heading = (
        f"By `k2 tiers write`, from the {days} days up to {found.at:%Y-%m-%d %H:%M} UTC.\n"
        "Under overload tier 3 (what no list names) is shed first, then tier 2, tier 1 last.\n"
        "Edit it as you like: writers read it again. Patterns such as BTC-* may be used."
    )
    _write(path, to_toml({**kept, **tables}, heading))
    for exchange, ranked in found.ranked.items():
        counts = [sum(each.tier == tier for each in ranked) for tier in (1, 2, 3)]
        say(f"{exchange}: {counts[0]} symbols of tier 1, {counts[1]} of 2, {counts[2]} of 3")
    say(f"written: {path}")


@dataclass(frozen=True)
class _Ranking:
    """What was traded up to a moment, and the symbols of each exchange by it."""

    at: datetime
    answer: "Answer"
    ranked: "dict[str, list[Ranked]]"

    def table(self, path: Path) -> "pa.Table":
        """A row for each symbol, the largest of each exchange first."""
        import pyarrow as pa

        from k2.ingest.tiers import BUILT_IN, read_tiers, to_tiers

        now = read_tiers(path) if path.exists() else to_tiers(BUILT_IN, "built in")
        traded = self.answer.table
        at = {pair: n for n, pair in enumerate(zip(*_pairs(traded), strict=True))}
        order, ranks, tiers, tiers_now = [], [], [], []
        for exchange, ranked in self.ranked.items():
            order += [at[exchange, each.symbol] for each in ranked]
            ranks += [each.rank for each in ranked]
            tiers += [each.tier for each in ranked]
            tiers_now += now.of(exchange, [each.symbol for each in ranked]).tolist()
        table = traded.take(pa.array(order, pa.int64()))
        for name, values in (("tier_now", tiers_now), ("tier", tiers), ("rank", ranks)):
            table = table.add_column(2, name, pa.array(values, pa.int64()))
        return table


def _rank(settings: Settings, exchanges: tuple[str, ...], days: int) -> _Ranking:
    from k2.ingest.ranking import Traded, rank
    from k2.query import Selection

    now = datetime.now(UTC)
    with reader_of(settings) as reader:
        start = now - timedelta(days=days)
        answer = reader.turnover(Selection(exchanges=exchanges, start=start))
    of_exchange: dict[str, list[Traded]] = {}
    for row in answer.table.to_pylist():
        traded = Traded(row["symbol"], row["currency"], row["volume"], row["value"])
        of_exchange.setdefault(row["exchange"], []).append(traded)
    return _Ranking(now, answer, {name: rank(of) for name, of in of_exchange.items()})


def _pairs(table: "pa.Table") -> tuple[list[str], list[str]]:
    return table["exchange"].to_pylist(), table["symbol"].to_pylist()


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a writer may read it at any moment."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, "utf-8")
    draft.replace(path)
