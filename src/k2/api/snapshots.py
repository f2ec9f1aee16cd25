"""Past states: GET /v1/snapshots, POST /v1/snapshots/{id}/query."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from k2.api import answers, asked, records, shapes

router = APIRouter(tags=["time travel"])


@router.get("/v1/snapshots", responses=shapes.table("Snapshot"), summary="Commits of a table")
async def snapshots(request: Request, query: Annotated[asked.SnapshotsAsked, Query()]) -> Response:
    """Commits, the newest first: snapshot id, time, rows."""
    return await answers.answer(
        request,
        lambda reader, _: reader.snapshots(query.table, limit=query.limit),
        asked=query,
        limit=query.limit,
        format=query.format,
    )


@router.post(
    "/v1/snapshots/{id}/query",
    responses=shapes.table("Record"),
    openapi_extra=asked.json_body(asked.SnapshotQueryAsked),
    summary="A query at a snapshot",
)
async def query_snapshot(
    request: Request,
    snapshot: Annotated[str, Path(alias="id", pattern=r"^[0-9]{1,19}$")],
) -> Response:
    """The same as POST /v1/{table}/query, over the rows that the snapshot held."""
    query = await asked.body(request, asked.SnapshotQueryAsked)
    return await records.queried(request, query.table, query, as_of=snapshot)
