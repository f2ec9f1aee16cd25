"""The alerts: promtool proves each both ways, over figures that K2 really has."""

import re
import subprocess

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from k2.cli.main import command_names
from k2.settings import SETTINGS
from tests.ops.expressions import CASES, CONFIG, RULES, alerts, asked, exported, rules

TESTS = {each["name"]: each for each in yaml.safe_load(CASES.read_text("utf-8"))["tests"]}


def firing(test: dict[str, object], *, ever: bool = False) -> list[set[str]]:
    """Which alerts the test expects to fire, each time that it looks; `ever`: until then."""
    looks = test["promql_expr_test"]
    assert isinstance(looks, list)
    return [
        set(re.findall(r'alertname="(\w+)"', str(look["exp_samples"])))
        for look in looks
        if "ALERTS" in look["expr"] and ("count_over_time" in look["expr"]) is ever
    ]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert", rule.get("record")))
def test_rules_ask_for_figures_that_there_are(rule: dict[str, str]) -> None:
    names = asked(rule["expr"])
    assert names
    assert names - {"up"} <= exported().keys()


@pytest.mark.parametrize("name", alerts())
def test_an_alert_is_proved_both_ways(name: str) -> None:
    assert firing(TESTS[name]) == [set(), {name}], "not yet, then this one and no other"


def test_a_good_day_is_one_of_everything_that_alerts_look_at() -> None:
    assert firing(TESTS["healthy"], ever=True) == [set()]
    given = {re.split(r"[{ ]", each["series"])[0] for each in TESTS["healthy"]["input_series"]}
    for name, alert in alerts().items():
        assert asked(alert["expr"]) <= given, name


def test_no_test_is_of_an_alert_that_there_is_not() -> None:
    assert {name for name in TESTS if name.startswith("K2")} == alerts().keys()


@pytest.mark.parametrize("alert", alerts().values(), ids=alerts())
def test_an_alert_says_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    told = alert["annotations"]
    assert told.keys() == {"summary", "description", "next"}
    commands = re.findall(r"`k2 (?:--debug )?(\w+)", told["next"])
    assert commands
    assert set(commands) <= set(command_names())
    settings = set(re.findall(r"\bK2_\w+", str(told)))
    assert settings <= {setting.name for setting in SETTINGS}


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_configuration_and_rules(promtool: str) -> None:
    run(promtool, "check", "config", str(CONFIG))
    run(promtool, "check", "rules", str(RULES))


@pytest.mark.slow
def test_promtool_proves_every_alert(promtool: str) -> None:
    run(promtool, "test", "rules", str(CASES))
