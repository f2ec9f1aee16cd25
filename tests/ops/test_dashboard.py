"""The dashboard: sound as a document, over figures that there are, of which none is unseen."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from tests.ops.expressions import asked, board, exported, panels, queries, rules

COLUMNS = 24


@pytest.mark.parametrize(("title", "query"), queries())
def test_queries_ask_for_figures_that_there_are(title: str, query: str) -> None:
    assert asked(query) - {"up"} <= exported().keys(), title


def test_every_figure_is_looked_at_somewhere() -> None:
    every = [query for _, query in queries()] + [rule["expr"] for rule in rules()]
    seen = {exported().get(name) for each in every for name in asked(each)}
    assert set(exported().values()) - seen == set()


def test_promtool_takes_every_query(promtool: str, tmp_path: Path) -> None:
    made = [{"record": f"panel:{n}", "expr": query} for n, (_, query) in enumerate(queries())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    every = board()["panels"]
    assert len({each["id"] for each in every}) == len(every)
    taken: dict[tuple[int, int], str] = {}
    for each in every:
        at = each["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{each['title']} lies over {taken[x, y]}"
                taken[x, y] = each["title"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_reads_the_prometheus_that_was_chosen(panel: dict[str, Any]) -> None:
    (variable,) = board()["templating"]["list"]
    source = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    assert panel["datasource"] == source
    assert panel["type"] in ("timeseries", "stat")
    assert panel["fieldConfig"]["defaults"]["unit"]
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))
    assert all(target["datasource"] == source for target in panel["targets"])
