"""What the server counts, for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "k2_http_requests",
            "Requests answered, by route and status",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "k2_http_request_seconds",
            "Seconds from a request to its answer's end, by route",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.rows = Counter("k2_http_rows", "Rows given back", registry=self.registry)
        self.held = Gauge("k2_http_queries", "Queries that wait or run", registry=self.registry)
        self.state = Gauge(
            "k2_state",
            "What GET /v1/status tells as numbers, by name",
            ["name"],
            registry=self.registry,
        )
