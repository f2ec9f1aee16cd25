"""Pinned datasets: GET and POST /v1/pins, GET /v1/pins/{name}, POST /v1/pins/{name}/verify.

What a pin is of may not be deleted: letting go of one is for whoever sits at the machine
(`k2 pin remove`), not for a request.
"""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import pyarrow as pa
from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.lake import Dataset
from k2.query import Answer, Past, Reader, Wish
from k2.query.pins import to_table

router = APIRouter(tags=["evidence"])


class PinWanted(asked.Asked):
    """Body of POST /v1/pins."""

    name: asked.PinName
    kind: Literal["trades", "quotes", "corrections", "instruments", "dividends", "splits"] = (
        "trades"
    )
    symbols: list[asked.Symbol] = Field([], max_length=100)
    exchanges: list[asked.ExchangeName] = Field([], max_length=100)
    start_time: asked.When | None = Field(None, description="Inclusive")
    end_time: asked.When | None = Field(None, description="Exclusive")
    fields: list[Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]] = Field(
        [], max_length=64, description="Columns that count; all of the kind's own where empty"
    )
    as_of: asked.AsOf | None = None
    as_known_at: asked.When | None = Field(None, description="Only what was known by then")
    author: asked.Word | None = Field(None, description="Who pins it")
    note: asked.Word | None = Field(None, description="Why")


class NothingWanted(asked.Asked):
    """Body of POST /v1/pins/{name}/verify: an empty object."""


@router.get("/v1/pins", responses=shapes.table("Pin"), summary="Datasets that are pinned")
async def pins(request: Request, query: Annotated[asked.FormatAsked, Query()]) -> Response:
    """All pins that stand, by name: question, columns, commit, rows, and the content's hash."""
    return await _answer(request, lambda reader, _: reader.pins.standing(), query)


@router.post(
    "/v1/pins",
    responses=shapes.table("Pin"),
    openapi_extra=asked.json_body(PinWanted),
    summary="Pin a dataset",
)
async def create(request: Request) -> Response:
    """Pin records as they are committed now, or were; answers with the pin.

    The same again changes nothing, as long as it is of the same rows; `meta.notes` tells of records
    that are not committed yet, and so no part of it.
    """
    asked.need_json(request, "pins")
    wanted = await asked.body(request, PinWanted)
    wish = Wish(
        wanted.name,
        wanted.kind,
        asked.selection(
            answers.desk(request).clock,
            symbols=wanted.symbols,
            exchanges=wanted.exchanges,
            start_time=wanted.start_time,
            end_time=wanted.end_time,
        ),
        tuple(dict.fromkeys(wanted.fields)),
        Past(wanted.as_of, wanted.as_known_at),
        wanted.author,
        wanted.note,
    )

    def work(reader: Reader, seconds: float) -> Answer:
        began = time.perf_counter()
        pin, notes = reader.pins.create(wish, timeout=seconds)
        return _told(to_table([pin]), began, notes)

    return await answers.answer(request, work, asked=wish)


@router.get("/v1/pins/{name}", responses=shapes.table("Pin"), summary="One pin")
async def show(
    request: Request,
    name: Annotated[asked.PinName, Path()],
    query: Annotated[asked.FormatAsked, Query()],
) -> Response:
    """All that is kept of one pin; 404 where there is none of that name."""
    return await _answer(request, lambda reader, _: [reader.pins.get(name)], query)


@router.post(
    "/v1/pins/{name}/verify",
    responses=shapes.table("PinVerdict"),
    openapi_extra=asked.json_body(NothingWanted),
    summary="Whether a pin's rows come back",
)
async def verify(request: Request, name: Annotated[asked.PinName, Path()]) -> Response:
    """Read the rows of a pin again, and compare: `ok`, or `problem` says how they differ."""
    await asked.body(request, NothingWanted)

    def work(reader: Reader, seconds: float) -> Answer:
        began = time.perf_counter()
        return _told(reader.pins.verify([name], timeout=seconds), began)

    return await answers.answer(request, work, asked=("verify", name))


async def _answer(
    request: Request, ask: Callable[[Reader, float], Sequence[Dataset]], query: asked.FormatAsked
) -> Response:
    def work(reader: Reader, seconds: float) -> Answer:
        began = time.perf_counter()
        return _told(to_table(ask(reader, seconds)), began)

    return await answers.answer(request, work, asked=query, format=query.format)


def _told(table: pa.Table, began: float, notes: Sequence[str] = ()) -> Answer:
    took = round((time.perf_counter() - began) * 1000, 3)
    return Answer(table, {"rows": table.num_rows, "milliseconds": took, "notes": list(notes)})
