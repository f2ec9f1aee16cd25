"""`k2 pin`, `k2 certificate`, `k2 diff`: what they print, and how they end."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.lake import open_lake
from k2.query.digest import digest_of
from tests.cli.conftest import K2, Ended
from tests.lake.test_closes import DAY, NOON, SIM, Clock, bring
from tests.query.rewriting import rows_of

URL = "simulator:?symbols=2&rate=max&seed=3&nominal=100&count="


@pytest.fixture
def filled(k2: K2) -> K2:
    """A home with 600 records in its tables and 100 more in its log."""
    for arguments in (
        ("feed", f"{URL}600"),
        ("ingest", "--until-caught-up"),
        ("feed", f"{URL}700"),
    ):
        assert k2(*arguments).code == 0
    return k2


def rows(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.talk
    found: list[dict[str, Any]] = json.loads(ended.out)["data"]
    return found


def lose(home: Path, count: int) -> None:
    """Rows vanish from the tables, as no part of K2 has them do."""
    lake = open_lake(home / "lake")
    table = lake.table("trades")
    (file,) = table.snapshot().files.select()
    assert file.exchange_date is not None
    written = table.write(rows_of(table, file).slice(count), file.exchange_date)
    table.replace([file.path], [written])
    lake.close()


def test_a_pin_is_made_listed_read_verified_and_let_go_of(filled: K2, tmp_path: Path) -> None:
    made = filled("pin", "create", "study", "BTCUSDT", "--note", "a study", "--author", "ada")
    assert made.code == 0
    assert "trades in the log are not committed yet" in made.talk
    (pin,) = rows(filled("pin", "list", "--json"))
    assert (pin["name"], pin["kind"], pin["author"], pin["note"]) == (
        "study", "trades", "ada", "a study",
    )  # fmt: skip
    assert filled("pin", "create", "study", "BTCUSDT").code == 0
    assert len(rows(filled("pin", "list", "--json"))) == 1
    shown = filled("pin", "show", "study").out
    assert pin["hash"] in shown
    assert '{"symbols":["BTCUSDT"]}' in shown

    assert filled("ingest", "--until-caught-up").code == 0
    read = rows(filled("trades", "--pin", "study", "--json"))
    assert len(read) == pin["rows"] < len(rows(filled("trades", "BTCUSDT", "--json")))
    table = pa.ipc.open_stream(filled("trades", "--pin", "study", "--arrow").raw).read_all()
    assert digest_of(table, table.column_names).hexdigest() == pin["hash"]
    verified = filled("pin", "verify", "study")
    assert (verified.code, "value for value" in verified.talk) == (0, True)

    gone = filled("pin", "remove", "study", "--note", "done")
    assert (gone.code, "let go of" in gone.talk) == (0, True)
    assert rows(filled("pin", "list", "--json")) == []
    ledger = rows(filled("sql", "SELECT event, note FROM pins ORDER BY committed_at", "--json"))
    assert ledger == [
        {"event": "pinned", "note": "a study"}, {"event": "removed", "note": "done"},
    ]  # fmt: skip
    assert filled("pin", "remove", "study").code == 1


def test_rows_that_do_not_come_back_end_with_1(filled: K2, tmp_path: Path) -> None:
    assert filled("pin", "create", "trades").code == 0
    assert filled("pin", "create", "quotes", "--kind", "quotes").code == 0
    assert filled("pin", "verify", "--all").code == 0
    saved = tmp_path / "answer.json"
    assert filled("trades", "--certificate", "--json", "-o", str(saved)).code == 0
    lose(tmp_path / "home", 2)
    ended = filled("pin", "verify", "--all", "--json")
    assert ended.code == 1
    assert "the pin trades does not come back" in ended.talk
    assert "2 are missing; of 2026-01-05" in ended.talk
    assert {row["name"]: row["ok"] for row in json.loads(ended.out)["data"]} == {
        "quotes": True, "trades": False,
    }  # fmt: skip
    assert filled("pin", "verify", "quotes").code == 0
    read = filled("trades", "--pin", "trades", "--csv")
    assert (read.code, "not what was pinned" in read.talk) == (1, True)
    ended = filled("certificate", "verify", str(saved))
    assert ended.code == 1
    assert "2 are missing" in ended.talk


def test_a_saved_answer_is_verified(filled: K2, tmp_path: Path) -> None:
    saved = tmp_path / "answer.json"
    ask = ("trades", "ETHUSDT", "--last", "20", "--certificate")
    assert filled(*ask, "--json", "-o", str(saved)).code == 0
    assert filled("ingest", "--until-caught-up").code == 0
    ended = filled("certificate", "verify", str(saved), "--json")
    assert ended.code == 0, ended.talk
    document = json.loads(ended.out)
    assert document["ok"] is True
    assert [verdict["rows_of"] for verdict in document["verdicts"]] == ["the tables", "the file"]

    alone = tmp_path / "certificate.json"
    answer = json.loads(saved.read_text())
    alone.write_text(json.dumps(answer["meta"]["certificate"]))
    ended = filled("certificate", "verify", str(alone))
    assert (ended.code, "value for value" in ended.talk) == (0, True)
    answer["data"][0]["price"] = "1"
    saved.write_text(json.dumps(answer))
    ended = filled("certificate", "verify", str(saved))
    assert ended.code == 1
    assert "the rows in the file are not those" in ended.talk

    shown = filled(*ask)
    hash_ = answer["meta"]["certificate"]["hash"]
    assert "certificate: SHA-256" in shown.talk
    assert hash_ in shown.talk  # committed since, they are the same rows
    parquet = tmp_path / "answer.parquet"
    assert filled(*ask, "-o", str(parquet)).code == 0
    assert b"k2.meta" in pq.read_schema(parquet).metadata


@pytest.mark.parametrize("content", ["", "{", "[]", '{"data": [], "meta": {}}'])
def test_files_that_are_no_certificate(filled: K2, tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    assert filled("certificate", "verify", str(path)).code == 2


def test_wrong_usage(filled: K2) -> None:
    assert filled("pin", "create", "x").code == 0
    for arguments in (
        ("pin", "create", "a/b"),
        ("pin", "create", "y", "--fields", "prize"),
        ("pin", "verify"),
        ("pin", "verify", "x", "--all"),
        ("trades", "BTCUSDT", "--pin", "x"),
        ("trades", "--pin", "x", "--fields", "price"),
        ("trades", "--pin", "x", "--as-of", "2026-01-01T00:00:00Z"),
        ("trades", "--pin", "x", "--where", "price>1"),
        ("trades", "--pin", "x", "--certificate"),
        ("quotes", "--pin", "x"),
        ("certificate", "verify", "nowhere.json"),
        ("diff",),
    ):
        assert filled(*arguments).code == 2, arguments
    for arguments in (
        ("pin", "show", "y"),
        ("pin", "verify", "y"),
        ("trades", "--pin", "y"),
        ("pin", "create", "x", "ETHUSDT"),
        ("diff", "--from", "nowhere"),
    ):
        assert filled(*arguments).code == 1, arguments


def test_states_are_compared(filled: K2) -> None:
    (first,) = rows(filled("snapshots", "--json"))
    everything = rows(filled("diff", "--from", "2020-01-01T00:00:00Z", "--json"))
    assert sum(row["rows"] for row in everything) == first["rows"]
    assert filled("ingest", "--until-caught-up").code == 0
    ended = filled("diff", "--from", first["snapshot_id"], "--json")
    later = rows(ended)
    second = rows(filled("snapshots", "--json"))[0]
    assert sum(row["rows"] for row in later) == second["rows"]
    # The market is of a day in the past.
    assert all(row["late"] == row["rows"] for row in later)
    assert json.loads(ended.out)["meta"]["until"]["commit"] == 2
    only = rows(filled("diff", "ETHUSDT", "--from", "-10d", "--kind", "quotes", "--json"))
    assert [row["symbol"] for row in only] == ["ETHUSDT"]
    none = filled("diff", "--from", "-10d", "--to", first["snapshot_id"], "--exchange", "ASX")
    assert none.out.splitlines()[0].split()[:3] == ["symbol", "exchange", "rows"]


def test_maintenance_names_the_ends_of_days(k2: K2, tmp_path: Path) -> None:
    """A day that was lived, and ended, has its name; it goes wherever a state is asked for."""
    clock = Clock()
    (tmp_path / "home").mkdir()
    lake = open_lake(tmp_path / "home" / "lake", clock=clock)
    for day in range(3):
        clock.now = NOON + day * DAY
        bring(lake.table("trades"), (clock.now, SIM))
    lake.close()
    assert k2("maintain", "--dry-run").code == 0
    assert [row["tags"] for row in rows(k2("snapshots", "--json"))] == [None] * 3
    assert k2("maintain").code == 0
    tagged = {row["tags"]: row["commit"] for row in rows(k2("snapshots", "--json")) if row["tags"]}
    names = [f"sim-2026-11-2{day}-close" for day in range(3)]
    assert tagged == {name: n for n, name in enumerate(names, 1)}
    assert len(rows(k2("trades", "--as-of", names[1], "--json"))) == 2
    (came,) = rows(k2("diff", "--from", names[0], "--to", names[1], "--json"))
    assert (came["rows"], came["late"]) == (1, 0)
    assert k2("pin", "create", "close", "--as-of", names[0]).code == 0
    (pin,) = rows(k2("pin", "list", "--json"))
    assert (pin["rows"], pin["commit"]) == (1, 1)
