"""Traces: how long each step of a request or a commit took, sent by OpenTelemetry if that is set.

The rooms name their steps here; without `set_up_traces` that costs a call and no more. Attributes
follow OpenTelemetry's semantic conventions where there is one; K2's own begin with `k2.`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from k2.errors import BadInput

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_EXTRA: Final = "k2-lakehouse[traces]"
_SECONDS: Final = 3.0
"""How long one who takes traces is waited for; at the end of the process too."""

_tracer: "Tracer | None" = None


class Step:
    """A step that is being traced, or one that is not."""

    def __init__(self, span: "Span | None" = None) -> None:
        self._span = span

    def tell(self, name: str | None = None, **attributes: str | float) -> None:
        """Say what is only known now: another `name`, and attributes (`__` stands for a dot)."""
        if self._span is None:
            return
        if name is not None:
            self._span.update_name(name)
        self._span.set_attributes(_dotted(attributes))


_UNTRACED: Final = Step()


@contextmanager
def step(
    name: str, *, caller: Mapping[str, str] | None = None, **attributes: str | float
) -> Iterator[Step]:
    """Trace what happens within, as part of the step around it, or of that of the `caller`: the
    headers of a request, of which `traceparent` counts (W3C Trace Context).

    `__` in an attribute's name stands for a dot. An error that passes through is told.
    """
    if _tracer is None:
        yield _UNTRACED
        return
    from opentelemetry.propagate import extract

    context = extract(caller) if caller is not None else None
    with _tracer.start_as_current_span(name, context, attributes=_dotted(attributes)) as span:
        yield Step(span)


def set_up_traces(url: str, service: str) -> None:
    """Send traces to `url` (OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces) from now on.

    What is not sent yet is sent when the process ends. Raises `BadInput` where what it takes is
    not installed.
    """
    global _tracer
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise BadInput(
            "traces cannot be sent: OpenTelemetry is not installed",
            place="K2_TRACES",
            hint=f"pip install '{_EXTRA}'",
        ) from error
    about = {"service.name": service, "service.version": version("k2-lakehouse")}
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=_SECONDS))
    )
    _tracer = provider.get_tracer("k2")


def _dotted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in attributes.items()}
