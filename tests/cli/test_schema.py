"""`k2 schema`: what there is, what it says, what may follow it."""

import json
from pathlib import Path

from k2 import model
from tests.cli.conftest import K2


def test_kinds_are_listed_without_a_home(k2: K2, tmp_path: Path) -> None:
    rows = json.loads(k2("schema", "list", "--json").out)["data"]
    assert {row["name"] for row in rows} == set(model.kinds())
    assert not (tmp_path / "home").exists()


def test_subjects_of_the_registry_are_listed_and_shown(k2: K2, market: Path) -> None:
    home = ("--home", str(market))
    rows = json.loads(k2("schema", "list", *home, "--json").out)["data"]
    subject = "market.crypto.trades.simulated-value"
    assert [row["version"] for row in rows if row["name"] == subject] == [1]
    shown = json.loads(k2("schema", "show", subject, *home).out)
    assert shown == model.latest("trades").avro


def test_one_version_is_shown(k2: K2) -> None:
    assert json.loads(k2("schema", "show", "trades", "--version", "1").out) == (
        model.versions("trades")[0].avro
    )
    assert k2("schema", "show", "trades", "--version", "9").code == 1
    assert k2("schema", "show", "nosuch").code == 1


def test_a_schema_is_checked_against_the_newest(k2: K2, tmp_path: Path) -> None:
    file = tmp_path / "next.avsc"
    avro = json.loads(json.dumps(model.latest("trades").avro))
    field = {"name": "colour", "type": ["null", "string"], "default": None}
    file.write_text(json.dumps({**avro, "fields": [*avro["fields"], field]}))
    assert k2("schema", "check", str(file), "trades").code == 0
    file.write_text(json.dumps({**avro, "fields": avro["fields"][1:]}))
    ended = k2("schema", "check", str(file), "trades")
    assert ended.code == 1
    assert "symbol" in ended.talk
    file.write_text("{")
    assert k2("schema", "check", str(file), "trades").code == 2
    assert k2("schema", "check", str(tmp_path / "nosuch"), "trades").code == 2
