"""What a user's SQL may be: one SELECT over relations that K2 names, computing and no more.

Comes in: the statement's syntax tree, made by the engine's own parser, so that the two cannot
disagree. What the engine forbids besides (files, settings) is a second wall, not this one's excuse.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from k2.errors import BadInput, Refused

TEXT_LIMIT: Final = 100_000

_TABLE_FUNCTIONS: Final = frozenset({"unnest", "range", "generate_series"})
_TABLES: Final = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "EXPRESSION_LIST", "TABLE_FUNCTION", "PIVOT"}
)
_WINDOWS: Final = frozenset(
    {"row_number", "rank", "dense_rank", "rank_dense", "percent_rank", "cume_dist", "ntile"}
    | {"lag", "lead", "first_value", "last_value", "nth_value", "fill"}
)
# They read settings and state, write, wait, or run what they are given.
_DENIED: Final = re.compile(
    r"__.*|pg_.*|inet_.*|has_.*_privilege|current_setting|current_query|current_schemas?|"
    r"current_database|current_catalog|current_role|current_user|session_user|user|"
    r"getvariable|getenv|nextval|currval|setval|setseed|sleep_ms|write_log|txid_current|"
    r"json_serialize_plan|json_execute.*|in_search_path|query|query_table|read_.*|stats|"
    r"get_block_size|col_description|obj_description|shobj_description"
)


def names_read(
    tree: Mapping[str, Any], relations: Collection[str], functions: Collection[str]
) -> frozenset[str]:
    """The relations that the one SELECT reads.

    `tree` is the parsed statement, `functions` the names of all that compute. Raises `BadInput`
    for what cannot be parsed or found, `Refused` for what is not allowed.
    """
    if tree.get("error"):
        if tree.get("error_type") == "not implemented":
            raise _only_select("another statement")
        raise BadInput(f"the SQL cannot be read: {tree.get('error_message')}")
    statements = tree["statements"]
    if len(statements) != 1:
        raise _only_select(f"{len(statements)} statements")
    nodes = list(_nodes(statements[0]))
    defined = {name.lower() for node in nodes for name in _common_tables(node)}
    read = set()
    for node in nodes:
        if name := _table(node):
            if name in defined:
                continue
            if name not in relations:
                raise BadInput(
                    f"there is no table called {node['table_name']!r}",
                    expected=", ".join(sorted(relations)),
                )
            read.add(name)
        _check_function(node, functions)
    return frozenset(read)


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Every object of the tree, without recursion: a user may nest deeply."""
    waiting = [tree]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _common_tables(node: Mapping[str, Any]) -> Iterator[str]:
    """Names that a WITH gives. Only plain ones: another could pass for a file elsewhere."""
    for entry in (node.get("cte_map") or {}).get("map", ()):
        name = entry["key"]
        if not re.fullmatch(r"\w{1,64}", name):
            raise Refused(f"{name!r} cannot name a part of WITH", expected="letters, digits and _")
        yield name


def _table(node: Mapping[str, Any]) -> str | None:
    """The name of the table that this node reads, in small letters; None if it reads none."""
    # What stands in FROM has a sample and is no expression.
    if "sample" not in node or "class" in node or node.get("type", "").endswith("_NODE"):
        return None
    if node["type"] == "SHOW_REF":
        raise Refused(
            "SHOW and DESCRIBE are not allowed",
            expected="a SELECT from trades, quotes, …",
            hint="`select * from trades limit 1` shows the columns, "
            "`k2 schema show trades` explains them",
        )
    if node["type"] not in _TABLES:
        raise Refused(f"{node['type'].replace('_', ' ').lower()} is not allowed in FROM")
    if node["type"] == "TABLE_FUNCTION":
        name = node["function"].get("function_name", "").lower()
        if name not in _TABLE_FUNCTIONS:
            raise Refused(
                f"the table function {name} is not allowed",
                expected=", ".join(sorted(_TABLE_FUNCTIONS)),
                hint="SQL reaches K2's tables only: no files, network or settings",
            )
        return None
    if node["type"] != "BASE_TABLE":
        return None
    if node["schema_name"] or node["catalog_name"]:
        raise Refused("tables have no schema or catalog", found=node["schema_name"])
    if node.get("at_clause") is not None:
        raise Refused("AT is not supported", hint="other commands take an as-of time")
    return str(node["table_name"]).lower()


def _check_function(node: Mapping[str, Any], functions: Collection[str]) -> None:
    kind = node.get("class")
    if kind == "PARAMETER":
        raise BadInput("the SQL has a parameter, and nothing to bind to it")
    if kind not in ("FUNCTION", "WINDOW"):
        return
    name = str(node.get("function_name", "")).lower()
    known = name in functions or name in _TABLE_FUNCTIONS or name in _WINDOWS
    if not known:
        raise BadInput(f"there is no function called {name!r}")
    if _DENIED.fullmatch(name):
        raise Refused(
            f"the function {name} is not allowed",
            hint="SQL may compute over K2's tables: it reaches no files, network or settings",
        )


def _only_select(found: str) -> Refused:
    return Refused(
        "only one SELECT is allowed",
        found=found,
        hint="tables are written by `k2 load` and feeds alone",
    )
