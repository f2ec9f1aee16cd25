"""A download of all that matches, which goes on where it broke off.

Comes in: what is asked for. Goes out: tables, of one state, each row once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from k2.client.http import ARROW, Http
from k2.errors import Unavailable


def downloaded(http: Http, kind: str, asked: Mapping[str, Any]) -> Iterator[pa.Table]:
    """The records, as the server sends them; at least one table, if an empty one.

    Where the connection breaks, it is asked for what follows the last record that came whole.
    Raises what the server says, and `Unavailable` once it breaks with nothing gained.
    """
    after: str | None = None
    while True:
        gained = False
        question = asked if after is None else {**asked, "after": after}
        try:
            with http.opened(f"/v1/export/{kind}", question, None, ARROW) as response:
                stream = pa.ipc.open_stream(response)
                if after is None:
                    yield _plain(stream.schema.empty_table())
                while True:
                    try:
                        batch, told = stream.read_next_batch_with_custom_metadata()
                    except StopIteration:
                        return
                    yield _plain(pa.Table.from_batches([batch]))
                    after, gained = told[b"k2.position"].decode(), True
        except Unavailable:
            if not gained:
                raise


def _plain(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata(None)
