"""A stream over HTTP: what is there, then what arrives, for as long as somebody reads.

Comes in: what is asked for. Goes out: batches, each with the position behind it. A connection that
breaks is made again, and goes on there.
"""

import json
import time
from collections.abc import Generator, Mapping
from http import HTTPStatus
from typing import Any, Final

import pyarrow as pa

from k2.client.http import ARROW, Http, to_error
from k2.client.replay import Batch
from k2.errors import Unavailable

_PATIENCE_SECONDS: Final = 30.0
"""How long a server that answered before may be away."""
_RETRY_SECONDS: Final = 0.5


def streamed(
    http: Http, asked: Mapping[str, Any], after: str | None
) -> Generator[Batch, None, None]:
    """Batches as the server sends them, until it has told all that was asked for.

    Raises what the server says, and `Unavailable` where it is not there, or away for long.
    """
    was_there = False
    away_since: float | None = None
    while True:
        question = asked if after is None else {**asked, "after": after}
        try:
            with http.opened("/v1/stream", question, None, ARROW) as response:
                if response.status == HTTPStatus.NO_CONTENT:
                    return
                stream = pa.ipc.open_stream(response)
                while True:
                    batch, told = stream.read_next_batch_with_custom_metadata()
                    after, was_there = told[b"k2.position"].decode(), True
                    event = told[b"k2.event"]
                    if event != b"open":
                        # One that opens, and breaks each time, is as good as away.
                        away_since = None
                    if event == b"end":
                        return
                    if event == b"error":
                        raise to_error(json.loads(told[b"k2.error"]))
                    if batch.num_rows:
                        yield Batch(pa.Table.from_batches([batch]), after)
        except StopIteration:
            ended: Exception = Unavailable("the stream broke off", place="/v1/stream")
        except Unavailable as error:
            ended = error
        # From the first failure on: whoever reads may take long over what he was given before.
        away_since = time.monotonic() if away_since is None else away_since
        if not was_there or time.monotonic() - away_since > _PATIENCE_SECONDS:
            raise ended
        time.sleep(_RETRY_SECONDS)
