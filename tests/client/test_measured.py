"""The client's bars by other kinds, measures and best quotes are the reader's own."""

from decimal import Decimal

import pyarrow as pa
import pytest

from k2.client import Client, client
from k2.errors import BadInput, Refused
from k2.query import Reader, Selection
from tests.api.conftest import home, reader
from tests.client.test_client import k2, plain

__all__ = ["home", "k2", "reader"]


def test_bars_by_what_traded(k2: Client, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    symbol = reader.symbols().table["symbol"][0].as_py()
    wanted = reader.bars(Selection((symbol,)), "5", kind="tick").table
    assert plain(k2.bars(symbol, "5", kind="tick")) == plain(wanted)
    one = k2.bars(symbol, "5s", consolidated=True, fill=True)
    assert set(one["state"].to_pylist()) <= {"traded", "empty"}
    assert set(one["exchange"].to_pylist()) == {"*"}
    monkeypatch.setattr(client, "_MOST_BARS", 3)
    with pytest.raises(Refused, match="3 bars or more"):
        k2.bars(symbol, "5", kind="tick")
    with pytest.raises(BadInput, match="no size"):
        k2.bars(symbol, "1m", kind="tick")


def test_measures_and_best_quotes(k2: Client, reader: Reader) -> None:
    symbol = reader.symbols().table["symbol"][0].as_py()
    metrics = ["vwap", "volume_profile"]
    asked = Selection((symbol,))
    wanted = reader.aggregate(asked, metrics, "1s", bin_size="0.5").table
    found = k2.aggregate(symbol, metrics=metrics, interval="1s", bin_size=Decimal("0.5"))
    assert found.equals(wanted)
    assert found.schema.field("vwap").type == pa.decimal128(18, 8)
    best = reader.bbo(asked).table
    assert plain(k2.bbo(symbol)) == plain(best)
    assert plain(k2.bbo(symbol, exchanges=["other", "simulated"], last=2)) == plain(best)[-2:]
    with pytest.raises(BadInput):
        k2.aggregate(symbol, metrics=["median"])
