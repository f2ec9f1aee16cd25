"""Health, state and metrics: GET /health, /health/live, /health/ready, /metrics, /v1/status."""

from fastapi import APIRouter, Request
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from k2.api import answers, shapes
from k2.errors import K2Error

router = APIRouter(tags=["state"])


@router.get("/health/live", responses=shapes.plain("Health"), summary="Is the process alive?")
async def live(request: Request) -> Response:
    """Alive while the event loop turns. Asks nothing of the tables."""
    return answers.plain(request, [{"status": "ok"}])


@router.get("/health/ready", responses=shapes.plain("Health"), summary="Can it answer queries?")
async def ready(request: Request) -> Response:
    """Ready when the tables can be read; 503 until then."""
    at = answers.desk(request)
    await at.workers.run(request, lambda _: at.reader.status())
    return answers.plain(request, [{"status": "ok"}])


@router.get("/health", responses=shapes.plain("Health"), summary="The same as /health/ready")
async def health(request: Request) -> Response:
    """Ready when the tables can be read; 503 until then."""
    return await ready(request)


@router.get("/v1/status", responses=shapes.plain("Status"), summary="What runs, at a glance")
async def status(request: Request) -> Response:
    """Records per second, lag, freshness, snapshot, and what the last audit found."""
    at = answers.desk(request)
    found = await at.workers.run(request, lambda _: at.reader.status())
    return answers.plain(request, [{**found, "audit": at.auditor.state()}])


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text", "content": {"text/plain": {}}},
        **shapes.ERRORS,
    },
)
async def metrics(request: Request) -> Response:
    """Requests, seconds and rows of this server, what the last audit counted, and the numbers of
    GET /v1/status, as long as log and tables can be read.
    """
    at = answers.desk(request)
    try:
        at.metrics.stands(await at.workers.run(request, lambda _: at.reader.status()))
    except K2Error:
        # What it counts itself is true all the same, and never more wanted than now.
        at.metrics.stands(None)
    at.metrics.audited(at.auditor)
    at.metrics.held.set(at.workers.held)
    at.metrics.streams.set(at.seats.taken)
    return Response(generate_latest(at.metrics.registry), media_type=CONTENT_TYPE_LATEST)
