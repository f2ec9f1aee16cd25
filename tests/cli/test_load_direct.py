"""`k2 load --direct`: what is its own, beside what any load tells (see test_load.py)."""

import json
import signal
from pathlib import Path

import pytest

from k2.cli.main import INTERRUPTED
from tests.cli.conftest import K2
from tests.cli.running import running, wait_for
from tests.cli.test_load import GOOD, arguments, write

TOPIC = "loaded.equities.trades.ASX"


def direct(file: str, *more: str) -> tuple[str, ...]:
    return arguments(file, "--direct", *more)


def test_each_place_of_a_manifest_is_audited(k2: K2, tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    k2(*direct(file))
    k2(*arguments(file))
    header, *rows = k2("audit").out.splitlines()
    assert [row.split()[:6] for row in rows] == [
        [TOPIC, "-1", "0", "3", "3", "0"],
        ["market.equities.trades.ASX", "0", "0", "3", "0", "3"],
    ]
    assert header.split()[4:] == ["committed", "duplicate"]
    (one,) = json.loads(k2("audit", "--partition", f"{TOPIC}[-1]", "--json").out)["partitions"]
    assert (one["topic"], one["committed"]) == (TOPIC, 3)
    assert k2("audit", "--partition", f"{TOPIC}[0]").code == 1
    k2(*direct(file))
    since = json.loads(k2("audit", "--since", "last", "--json").out)["partitions"]
    assert [(p["start_offset"], p["duplicate"]) for p in since] == [(3, 3), (3, 0)]


def test_answers_tell_the_place_and_commits_the_offsets(k2: K2, tmp_path: Path) -> None:
    k2(*direct(write(tmp_path, GOOD)))
    rows = json.loads(k2("sql", "SELECT * FROM trades ORDER BY log_offset", "--json").out)["data"]
    assert [(r["log_topic"], r["log_partition"], r["log_offset"]) for r in rows] == [
        (TOPIC, -1, n) for n in range(3)
    ]
    (commit,) = json.loads(k2("commits", "--json").out)["data"]
    assert json.loads(commit["offsets"])[TOPIC]["next_offset"] == {"-1": 3}


def test_past_states_pins_and_certificates(k2: K2, tmp_path: Path) -> None:
    k2(*direct(write(tmp_path, GOOD)))
    (first,) = json.loads(k2("snapshots", "--json").out)["data"]
    assert k2("pin", "create", "study", "ABC").code == 0
    answer = tmp_path / "answer.json"
    k2("trades", "ABC", "--certificate", "--json", "-o", str(answer))
    k2(*direct(write(tmp_path, GOOD.replace("1.12", "1.25"))))
    assert len(json.loads(k2("trades", "ABC", "--json").out)["data"]) == 5
    past = k2("trades", "ABC", "--json", "--as-of", str(first["snapshot_id"]))
    assert len(json.loads(past.out)["data"]) == 3
    assert k2("maintain").code == 0
    assert k2("pin", "verify", "--all").code == 0
    assert k2("certificate", "verify", str(answer)).code == 0


def test_records_of_days_that_are_not_kept(k2: K2, tmp_path: Path) -> None:
    ask = direct(write(tmp_path, GOOD), "--json")
    k2(*ask)
    (tmp_path / "home" / "retention.toml").write_text("[trades]\ntier_3 = 90\n")
    assert "are retired" in k2("maintain", "trades").talk
    again = json.loads(k2(*ask).out)
    assert (again["read"], again["committed"], again["retired"]) == (3, 0, 3)
    (part,) = json.loads(k2("audit", "--json").out)["partitions"]
    assert (part["end_offset"], part["retired"], part["problem"]) == (6, 6, None)


def test_rows_are_made_again(k2: K2, tmp_path: Path) -> None:
    file = Path(write(tmp_path, GOOD))
    k2(*direct(str(file)))
    before = k2("trades", "--csv").out
    (gone,) = (tmp_path / "home/lake/tables/trades/data").rglob("*.parquet")
    gone.unlink()
    assert k2("audit").code == 1
    (tmp_path / "moved").mkdir()
    file.rename(tmp_path / "moved" / file.name)
    ended = k2("rebuild", "trades")
    assert ended.code == 1
    assert "not there any more" in ended.talk
    assert "--sources" in ended.talk
    assert k2("rebuild", "trades", "--sources", str(tmp_path / "moved")).code == 0
    assert k2("trades", "--csv").out == before
    assert k2("audit").code == 0


@pytest.mark.slow
def test_ctrl_c_leaves_a_load_to_go_on_with(k2: K2, tmp_path: Path) -> None:
    count = 400_000
    times = (f"13:{n // 10_000 % 60:02}:{n // 100 % 60:02}.{n % 1000:03}" for n in range(count))
    text = "".join(f"03/10/2014,{at},1.{n % 90 + 10},1,0,,\n" for n, at in enumerate(times))
    ask = direct(write(tmp_path, text), "--json")
    loads = tmp_path / "home/lake/loads"
    with running(*ask, K2_HOME=str(tmp_path / "home")) as run:
        wait_for(lambda: list(loads.glob("*/load.json")), run)
        run.process.send_signal(signal.SIGINT)
        run.process.wait(60)
        assert run.process.returncode == INTERRUPTED, run.lines
        wait_for(lambda: run.says("load the same again to go on"), run)
    assert k2("audit").code == 0
    whole = json.loads(k2(*ask).out)
    assert (whole["read"], whole["committed"]) == (count, count)
    assert len(list(loads.glob("*/load.json"))) == 1
    assert k2("audit").code == 0
