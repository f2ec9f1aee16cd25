"""The rules and the dashboard as data, and the figures that they ask for."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # it ships no types

from k2.cli.reference import registries

OPS: Final = Path(__file__).parents[2] / "ops"
RULES: Final = OPS / "prometheus" / "k2.rules.yml"
CASES: Final = OPS / "prometheus" / "k2.rules.test.yml"
CONFIG: Final = OPS / "prometheus" / "prometheus.yml"
DASHBOARD: Final = OPS / "grafana" / "k2.json"

_SUFFIXES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


@cache
def exported() -> dict[str, str]:
    """Every series that K2 has, by the name of its figure as the documents have it."""
    found = {}
    for registry in registries().values():
        for family in registry.collect():
            told = f"{family.name}_total" if family.type == "counter" else family.name
            for suffix in _SUFFIXES.get(family.type, ("",)):
                found[family.name + suffix] = told
    return found


@cache
def rules() -> list[dict[str, Any]]:
    """All rules, in their order."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def recorded() -> dict[str, str]:
    """What each recording rule is made of, by its name."""
    found: dict[str, str] = {}
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = f"{found.get(rule['record'], '')}\n{rule['expr']}"
    return found


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, its rows left out."""
    return [each for each in board()["panels"] if each["type"] != "row"]


@cache
def board() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def queries() -> list[tuple[str, str]]:
    """Each query of the dashboard, below its panel's title."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def asked(expression: str) -> set[str]:
    """The series that an expression asks for, recorded ones by what they are made of."""
    names = set(re.findall(r"\b(?:k2_\w+|up\b)", re.sub(r'"[^"]*"', '""', expression)))
    made = recorded()
    for name in re.findall(r"\bk2:[\w:]+", expression):
        names |= asked(made[name])
    return names
