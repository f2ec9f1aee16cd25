"""The named statements of this room: `sql/NAME.sql`, with fragments put where they name them."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from k2.query.port import Statement


@cache
def text_of(name: str) -> str:
    """The text of `sql/NAME.sql`, for a statement that takes it in as a fragment."""
    return (files("k2.query") / "sql" / f"{name}.sql").read_text("utf-8")


def statement(name: str, values: Mapping[str, object], **fragments: str) -> Statement:
    """The statement `sql/NAME.sql`.

    `fragments` are SQL made from the schema's own names and from parameters, never from a user's
    text; `{rows}` and other sources stay for the engine to fill in.
    """
    text = text_of(name)
    for key, fragment in fragments.items():
        text = text.replace(f"{{{key}}}", fragment)
    return Statement(text, values)
