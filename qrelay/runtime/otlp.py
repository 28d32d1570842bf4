"""Traces, metrics and logs to a collector of OpenTelemetry's, over OTLP/gRPC.

Metrics are those that /metrics serves, read from the same registry and sent as they stand, so nothing is counted
twice. Logs are the lines of standard error, with the same fields, masked alike, and no word of a foreign exception.
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.resources import Resource
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from qrelay.config import TelemetrySettings
from qrelay.runtime.telemetry import JsonFormatter
from qrelay.settings.secrets import masked

log = logging.getLogger(__name__)

_OF_THE_EXPORT: Final = ("opentelemetry", "grpc")
"""Loggers of what sends: a line about a line that could not be sent would be sent too."""
_APART: Final = ("time", "level", "message", "trace_id")
"""Fields of a line that OTLP has places of its own for."""


def setup_export(service: str, settings: TelemetrySettings) -> None:
    """Export what `otlp_signals` names to `otlp_endpoint`; without one, spans cost nothing and context still travels.
    Whatever is still held is sent when the process ends."""
    if not settings.otlp_endpoint:
        return
    resource = Resource.create({"service.name": f"qrelay-{service}"})
    plain = settings.otlp_endpoint.lower().startswith("http://")  # no variable of OpenTelemetry's says otherwise
    target = {"endpoint": settings.otlp_endpoint, "insecure": plain}
    if "traces" in settings.otlp_signals:
        _send_traces(resource, target)
    if "metrics" in settings.otlp_signals:
        _send_metrics(resource, target, settings.otlp_metrics_every_s)
    if "logs" in settings.otlp_signals:
        _send_logs(resource, target, service)


def _send_traces(resource: Resource, target: Mapping[str, Any]) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**target)))
    trace.set_tracer_provider(provider)


def _send_metrics(resource: Resource, target: Mapping[str, Any], every_s: float) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    exporter, began, ended = OTLPMetricExporter(**target), time.time_ns(), threading.Event()

    def send() -> None:
        try:
            exporter.export(metrics_data(REGISTRY.collect(), resource, began, time.time_ns()))
        except Exception:  # one reading that fails ends no later one
            log.exception("metrics were not sent")

    def keep_sending() -> None:
        while not ended.wait(every_s):
            send()

    def end() -> None:
        ended.set()
        send()
        exporter.shutdown()

    threading.Thread(target=keep_sending, name="otlp metrics", daemon=True).start()
    atexit.register(end)


def _send_logs(resource: Resource, target: Mapping[str, Any], service: str) -> None:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider(resource)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**target)))
    logging.getLogger().addHandler(_Logs(provider.get_logger("qrelay"), JsonFormatter(service)))


class _Logs(logging.Handler):
    """Gives each line to OpenTelemetry; the span in which it was logged becomes its trace."""

    def __init__(self, logger: Any, lines: JsonFormatter) -> None:
        super().__init__()
        self._logger, self._lines = logger, lines

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises, as no handler does."""
        if record.name.partition(".")[0] in _OF_THE_EXPORT:
            return
        try:
            entry = self._lines.entry(record)
            self._logger.emit(
                timestamp=int(record.created * 1e9),
                severity_number=SeverityNumber(min(record.levelno // 10, 5) * 4 + 1),
                severity_text=record.levelname,
                body=str(entry["message"]),
                attributes={name: _plain(value) for name, value in entry.items() if name not in _APART},
            )
        except Exception:
            self.handleError(record)


def _plain(value: object) -> str | bool | int | float:
    if isinstance(value, str | bool | int | float):
        return value
    return json.dumps(value, default=lambda each: masked(str(each)))


def metrics_data(families: Iterable[Family], resource: Resource, since: int, now: int) -> Any:
    """Prometheus' families as OTLP has them (`MetricsData`), cumulative. since, now: nanoseconds since 1970; of the
    process's beginning and of the reading."""
    from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    found = [Metric(each.name, each.documentation, "", _data(each, since, now)) for each in families]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(InstrumentationScope("qrelay"), found, "")], "")])


def _data(family: Family, since: int, now: int) -> Any:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, NumberDataPoint, Sum

    cumulative = AggregationTemporality.CUMULATIVE
    if family.type == "histogram":
        return Histogram([*_histograms(family, since, now)], cumulative)
    counts = family.type == "counter"
    name = f"{family.name}_total" if counts else family.name
    points = [NumberDataPoint(s.labels, since, now, s.value) for s in family.samples if s.name == name]
    return Sum(points, cumulative, True) if counts else Gauge(points)


def _histograms(family: Family, since: int, now: int) -> Iterator[Any]:
    """A point for each set of labels. Prometheus counts what is at most a bound, OTLP what is between two."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    series: dict[tuple[tuple[str, str], ...], dict[str, list[Sample]]] = {}
    for each in family.samples:
        labels = tuple(sorted((name, value) for name, value in each.labels.items() if name != "le"))
        series.setdefault(labels, {}).setdefault(each.name.removeprefix(f"{family.name}_"), []).append(each)
    for labels, parts in series.items():
        upto = sorted((float(each.labels["le"]), int(each.value)) for each in parts["bucket"])
        counts = [after - before for before, after in pairwise([0, *(count for _, count in upto)])]
        unknown: Any = None  # Prometheus keeps neither the least nor the most
        yield HistogramDataPoint(
            dict(labels), since, now, upto[-1][1], parts["sum"][0].value, counts, [bound for bound, _ in upto[:-1]],
            unknown, unknown,
        )  # fmt: skip
