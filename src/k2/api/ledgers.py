"""What became of every record: GET /v1/audit, /v1/rejected, /v1/duplicates, /v1/shed, /v1/retired,
/v1/gaps; and how the writers fare: /v1/degradation.
"""

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
async def rejected(request: Request, query: Annotated[asked.EntriesAsked, Query()]) -> Response:
    """The newest rejected records: whole, with their errors and their places in the log."""
    return await _ledger(request, "rejected", query)


@router.get(
    "/v1/duplicates", responses=shapes.table("Duplicate"), summary="Records that came twice"
)
async def duplicates(request: Request, query: Annotated[asked.EntriesAsked, Query()]) -> Response:
    """The newest duplicates, and the row that each repeats."""
    return await _ledger(request, "duplicates", query)


@router.get("/v1/shed", responses=shapes.table("Shed"), summary="Records left in the log")
async def shed(request: Request, query: Annotated[asked.LedgerAsked, Query()]) -> Response:
    """The newest entries of what was left in the log under overload, and of what of it came in.

    `distances` holds the exact places (Base64 in JSON); see the table's own description.
    """
    return await _ledger(request, "shed", query)


@router.get("/v1/retired", responses=shapes.table("Retired"), summary="Days that are not kept")
async def retired(request: Request, query: Annotated[asked.LedgerAsked, Query()]) -> Response:
    """The newest entries of what retention took out of the tables, and of what came later.

    One for each day, exchange, tier and partition: symbols, how many records, by which rule and
    commit. `distances` holds the exact places (Base64 in JSON).
    """
    return await _ledger(request, "retired", query)


@router.get("/v1/gaps", responses=shapes.table("Gap"), summary="Records that never came")
async def gaps(request: Request, query: Annotated[asked.GapsAsked, Query()]) -> Response:
    """The newest holes in a venue's numbers, or what the log lost.

    `missing`: how many numbers of it the tables do not have by now; `state`: open, filling, filled
    or given up; `refill_from`: the log or the venue.
    """
    return await _ledger(request, "gaps", query)


@router.get(
    "/v1/degradation",
    responses=shapes.plain("WriterLevel"),
    summary="Whether writers are overloaded",
)
async def degradation(request: Request) -> Response:
    """The level of each writer that runs, from NORMAL to CIRCUIT_BREAK, and how it came to it."""
    at = answers.desk(request)
    found = await at.workers.run(request, lambda _: at.reader.levels())
    rows: list[object] = [
        {
            "writer": each.writer,
            "level": each.level.name,
            "number": int(each.level),
            "since": utc(each.since),
            "history": [dict(change) for change in each.history],
        }
        for each in found
    ]
    return answers.plain(request, rows, {"rows": len(rows)})


async def _ledger(request: Request, name: str, query: asked.LedgerAsked) -> Response:
    about = query.model_dump(exclude={"format", "limit", "state"})
    state = query.state if isinstance(query, asked.GapsAsked) else None
    return await answers.answer(
        request,
        lambda reader, seconds: reader.ledger(
            name, wanted=about, state=state, limit=query.limit, timeout=seconds
        ),
        asked=(name, query),
        limit=query.limit,
        format=query.format,
    )
