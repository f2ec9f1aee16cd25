"""Symbols by what they traded, and the file of tiers that follows from it."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.ingest.ranking import Ranked, Traded, rank, to_table, to_toml
from k2.ingest.tiers import read_tiers


def traded(symbol: str, value: int, volume: int = 1, currency: str | None = None) -> Traded:
    return Traded(symbol, currency, Decimal(volume), Decimal(value))


def tiers(ranked: list[Ranked]) -> dict[str, int]:
    return {each.symbol: each.tier for each in ranked}


def test_twenty_and_eighty_and_bitcoin_and_ether_whatever_they_trade() -> None:
    found = rank([traded(f"S{n}USDT", 1_000 - n) for n in range(150)] + [traded("BTCUSDT", 1)])
    assert [each.rank for each in found] == list(range(1, 152))
    assert [each.symbol for each in found[:3]] == ["S0USDT", "S1USDT", "S2USDT"]
    given = tiers(found)
    assert given == {
        **{f"S{n}USDT": 1 for n in range(20)},
        **{f"S{n}USDT": 2 for n in range(20, 100)},
        **{f"S{n}USDT": 3 for n in range(100, 150)},
        "BTCUSDT": 1,
    }


@pytest.mark.parametrize(
    ("dollars", "yen", "in_bitcoin"),
    [
        ("BTCUSDT", "BTCJPY", "SOLBTC"),
        ("BTC-USD", "BTC-JPY", "SOL-BTC"),
        ("XBT/USD", "XBT/JPY", "SOL/XBT"),
    ],
)
def test_currencies_are_compared_by_what_bitcoin_cost(
    dollars: str, yen: str, in_bitcoin: str
) -> None:
    """100,000 dollars or 15,000,000 yen a bitcoin; of another symbol, so much of each."""
    dollar, jpy = dollars[3:], yen[3:]
    found = rank(
        [
            traded(dollars, 1_000_000, 10),
            traded(yen, 75_000_000, 5),
            traded(f"SOL{dollar}", 300_000),  # 3 bitcoin
            traded(f"SOL{jpy}", 30_000_000),  # 2
            traded(in_bitcoin, 4),
            traded("SOLTRY" if dollar == "USDT" else f"SOL{dollar[0]}TRY", 10**9),  # of no price
        ]
    )
    assert [each.symbol for each in found][:5] == [
        *(dollars, yen),
        *(in_bitcoin, f"SOL{dollar}", f"SOL{jpy}"),
    ]


def test_an_exchange_without_bitcoin_has_one_currency() -> None:
    found = rank([traded("CBA", 5, currency="AUD"), traded("BHP", 7, currency="AUD")])
    assert [(each.symbol, each.tier) for each in found] == [("BHP", 1), ("CBA", 1)]
    assert to_table(found)["tier_1"] == ["BHP", "CBA"], "nothing that is not traded there"


def test_the_file_says_what_was_ranked(tmp_path: Path) -> None:
    names = ['A"B', "C*D", "E[1]", "F\\G", "H\x7f", "Größe", *(f"S{n}" for n in range(120))]
    found = rank([traded(f"{name}-USD", 1_000 - n) for n, name in enumerate(names)])
    path = tmp_path / "tiers.toml"
    path.write_text(to_toml({"coin base": to_table(found)}, "one\ntwo"), "utf-8")
    read = read_tiers(path)
    symbols = [each.symbol for each in found]
    assert read.of("coin base", symbols).tolist() == [each.tier for each in found]
    assert read.of("coin base", ["CxD-USD", "E1-USD"]).tolist() == [3, 3], "it was no pattern"
    assert read.of("another", ["BTC-USD", "SOL-USD"]).tolist() == [1, 3], "as without a file"


def test_bitcoin_in_a_currency_that_comes_later_is_first_too(tmp_path: Path) -> None:
    found = rank([traded("BTC-USD", 5), traded("SOL-USD", 7)])
    path = tmp_path / "tiers.toml"
    path.write_text(to_toml({"coinbase": to_table(found)}, "one"), "utf-8")
    read = read_tiers(path)
    wanted = ["BTC-USD", "SOL-USD", "BTC-EUR", "ETH-BTC", "BTCUSD"]
    assert read.of("coinbase", wanted).tolist() == [1, 1, 1, 1, 3]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=6), st.integers(0, 5), st.integers(0, 5)), max_size=40))
def test_each_symbol_has_one_rank(made: list[tuple[str, int, int]]) -> None:
    symbols = {symbol: (value, volume) for symbol, value, volume in made}
    found = rank([traded(symbol, *of) for symbol, of in symbols.items()])
    assert sorted(each.symbol for each in found) == sorted(symbols)
    assert [each.rank for each in found] == list(range(1, len(symbols) + 1))
