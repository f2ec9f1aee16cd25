"""What the URL of a file's feed says besides the file."""

import re
from collections.abc import Collection
from datetime import timedelta
from urllib.parse import parse_qsl, unquote

from k2.errors import BadInput
from k2.model import CLOCK_SKEW


def read_options(
    feed: str, rest: str, known: Collection[str]
) -> tuple[str, dict[str, str], timedelta]:
    """The path, the options by name, and their `skew` (in seconds; the writer's default without
    one) of `<path>?option=value&…`.

    Raises `BadInput` for an option that is not `known`, or a skew that is no number.
    """
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in known:
            raise BadInput(
                f"a {feed} feed has no option {option!r}", found=rest, expected=", ".join(known)
            )
    skew = options.pop("skew", None)
    if skew is None:
        return unquote(path), options, CLOCK_SKEW
    if not re.fullmatch(r"[0-9]{1,9}", skew):
        raise BadInput("skew is no number of seconds", found=skew, expected="such as skew=300")
    return unquote(path), options, timedelta(seconds=int(skew))
