"""`k2 chaos`: what it prints, and what a run that fails says."""

import json

import pytest

from k2.chaos import check
from tests.cli.conftest import K2


@pytest.mark.slow
def test_faults_are_counted_by_seam_and_kind(k2: K2) -> None:
    ended = k2("chaos", "--seed", "1", "--runs", "2", "--json")
    assert ended.code == 0, ended.talk
    rows = json.loads(ended.out)["data"]
    assert all(row["struck"] > 0 for row in rows)
    assert f"{sum(row['struck'] for row in rows):,} faults in 2 runs" in ended.talk
    assert "seeds from 1 on" in ended.talk


def test_a_failure_names_the_command_that_repeats_it(
    k2: K2, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise check.wrong("this record is lost: it has no fate", "there")

    monkeypatch.setattr("k2.chaos.runs.check_end", broken)
    monkeypatch.setattr("k2.chaos.runs._TICKS", 1)
    ended = k2("chaos", "--seed", "41", "--runs", "3")
    assert ended.code == 1
    assert "seed 41" in ended.talk
    assert "this record is lost" in ended.talk
    assert "k2 chaos --seed 41 --runs 1 repeats it" in ended.talk
