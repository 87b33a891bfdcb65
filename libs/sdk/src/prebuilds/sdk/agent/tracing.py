"""The trace of a claim, gone on with from a `Reinit` to the end of the startup for the new owner."""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.trace import Span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer(__name__)


class HandoverTrace:
    """The span of one reinitialisation; without an OpenTelemetry SDK in the process the context alone is passed on."""

    def __init__(self) -> None:
        """No handover is under way."""
        self._span: Span | None = None

    def begin(self, traceparent: str) -> None:
        """Go on with that trace, for the present task and those it starts from now on."""
        self.end()
        parent = _propagator.extract({"traceparent": traceparent})
        self._span = _tracer.start_span("agent.reinitialize", parent)
        context.attach(trace.set_span_in_context(self._span, parent))

    def leave(self) -> None:
        """What the present task does and starts from now on belongs to no trace."""
        context.attach(context.Context())

    def end(self) -> None:
        """The startup has ended."""
        if self._span is not None:
            self._span.end()
            self._span = None
