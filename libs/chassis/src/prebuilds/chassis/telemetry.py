"""Traces and metrics of one app: providers of its own, so that several apps can live in one test process.

Nothing here sets the process-wide providers; tracer and meter are constructor arguments like everything else. Metric
names are written in full where they are made (`prebuilds_claim_duration_seconds`), so that they can be searched for and
are the same in Prometheus and over OTLP.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, start_http_server

from prebuilds.chassis.addresses import join_address, split_address

SECONDS_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0),
)
"""Every histogram in seconds has these: from 1 ms for a claim to 15 min for a cold build."""

_MAX_SERIES: Final = 100_000
"""Per metric. The exporter's own limit of 2,000 folds 10,000 presets into one series without a word."""


_propagator: Final = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What an app measures with; `metrics_address` is where Prometheus finds it, None where that is off."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    tracer: Tracer
    meter: Meter
    metrics_address: str | None
    has_readers: bool
    """Whether anybody reads what is measured: what has to be asked for in the background need not be otherwise."""


@asynccontextmanager
async def open_telemetry(
    service: str,
    *,
    metrics_address: str | None = None,
    span_processors: Sequence[SpanProcessor] = (),
    metric_readers: Sequence[MetricReader] = (),
) -> AsyncGenerator[Telemetry]:
    """Open providers, the Prometheus endpoint, and OTLP export where the standard OTEL_* variables name an endpoint.

    `span_processors` and `metric_readers` are for tests, which read what was measured from memory.
    """
    resource = Resource.create({SERVICE_NAME: f"prebuilds-{service}"})
    tracer_provider = TracerProvider(resource=resource)
    for processor in span_processors:
        tracer_provider.add_span_processor(processor)
    if _exports("TRACES"):
        tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    registry = CollectorRegistry()
    readers = [*metric_readers]
    if metrics_address is not None:
        readers.append(_prometheus_reader(registry))
    if _exports("METRICS"):
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    seconds = View(
        instrument_type=Histogram,
        instrument_unit="s",
        aggregation=ExplicitBucketHistogramAggregation(SECONDS_BUCKETS),
    )
    meter_provider = MeterProvider(resource=resource, metric_readers=readers, views=[seconds], shutdown_on_exit=False)

    bound: str | None = None
    endpoint = None
    try:
        if metrics_address is not None:
            host, port = split_address(metrics_address)
            endpoint = start_http_server(port, host, registry)
            bound = join_address(host, endpoint[0].server_port)
        name = f"prebuilds.{service}"
        yield Telemetry(
            tracer_provider,
            meter_provider,
            tracer_provider.get_tracer(name),
            meter_provider.get_meter(name),
            bound,
            has_readers=bool(readers),
        )
    finally:
        if endpoint is not None:
            server, thread = endpoint
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            await asyncio.to_thread(thread.join)
        # Both flush over the network and block while they do.
        await asyncio.to_thread(tracer_provider.shutdown)
        await asyncio.to_thread(meter_provider.shutdown)


def _prometheus_reader(registry: CollectorRegistry) -> PrometheusMetricReader:
    kinds = (Counter, UpDownCounter, Histogram, ObservableCounter, ObservableGauge, ObservableUpDownCounter)
    return PrometheusMetricReader(
        scope_info_enabled=False, registry=registry, cardinality_limits=dict.fromkeys(kinds, _MAX_SERIES)
    )


def _exports(signal: str) -> bool:
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def current_traceparent() -> str | None:
    """The present span as W3C trace context; None outside of one."""
    if not get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")
