"""What became of every record: GET /v1/audit, /v1/rejected, /v1/duplicates."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.api.audit import utc
from k2.errors import Unavailable

router = APIRouter(tags=["evidence"])


@router.get(
    "/v1/audit",
    responses=shapes.plain("AuditedPartition"),
    summary="Every record of the log and its fate",
)
async def audit(request: Request) -> Response:
    """A fresh audit: a row per partition, its counts by fate; `meta.ok` says whether they add up.

    `meta` also names the first offset that differs, if one does.
    """
    found = await answers.desk(request).auditor.run()
    if found.report is None:
        raise Unavailable(found.error or "the audit failed", place="audit")
    partitions = found.report["partitions"]
    assert isinstance(partitions, list)
    rest = {name: value for name, value in found.report.items() if name != "partitions"}
    meta = {**rest, "audited_at": utc(found.at), "seconds": round(found.seconds, 3)}
    return answers.plain(request, partitions, meta)


@router.get(
    "/v1/rejected", responses=shapes.table("Rejected"), summary="Records that were rejected"
)
async def rejected(request: Request, query: Annotated[asked.LedgerAsked, Query()]) -> Response:
    """The newest rejected records: whole, with their errors and their places in the log."""
    return await _ledger(request, "rejected", query)


@router.get(
    "/v1/duplicates", responses=shapes.table("Duplicate"), summary="Records that came twice"
)
async def duplicates(request: Request, query: Annotated[asked.LedgerAsked, Query()]) -> Response:
    """The newest duplicates, and the row that each repeats."""
    return await _ledger(request, "duplicates", query)


async def _ledger(request: Request, name: str, query: asked.LedgerAsked) -> Response:
    return await answers.answer(
        request,
        lambda reader, seconds: reader.ledger(name, limit=query.limit, timeout=seconds),
        asked=(name, query),
        limit=query.limit,
        format=query.format,
    )
