"""What the server counts, for Prometheus."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from k2.api.audit import Auditor

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STATES: Final = ("ok", "differs", "failed", "never")
_FATES: Final = (
    *("committed", "duplicate", "rejected", "retired"),
    *("shed", "absent", "lost", "in_flight"),
)


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
        self.streams = Gauge("k2_http_streams", "Streams that are open", registry=self.registry)
        self.state = Gauge(
            "k2_state",
            "What GET /v1/status tells as numbers, by name",
            ["name"],
            registry=self.registry,
        )
        self.ready = Gauge(
            "k2_ready", "1 if log and tables can be read, else 0", registry=self.registry
        )
        self.audit = Gauge(
            "k2_audit_state",
            "1 for what the last audit found, 0 for what it did not, by state",
            ["state"],
            registry=self.registry,
        )
        self.fates = Gauge(
            "k2_audit_records",
            "Records that the last audit counted, by fate",
            ["fate"],
            registry=self.registry,
        )

    def stands(self, status: Mapping[str, object] | None) -> None:
        """Keep how things stand; None: it cannot be seen."""
        self.ready.set(status is not None)
        # What is not known now must not look as if it were.
        self.state.clear()
        for name, value in (status or {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self.state.labels(name).set(value)

    def audited(self, auditor: Auditor) -> None:
        """Keep what the last audit found."""
        now = auditor.state()["state"]
        for state in _STATES:
            self.audit.labels(state).set(state == now)
        report = auditor.last.report if auditor.last is not None else None
        self.fates.clear()
        if report is not None:
            partitions = report["partitions"]
            assert isinstance(partitions, list)
            for fate in _FATES:
                self.fates.labels(fate).set(sum(each[fate] for each in partitions))
