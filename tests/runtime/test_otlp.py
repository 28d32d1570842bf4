"""Traces, metrics and logs at a collector: a real gRPC server with OpenTelemetry's own services."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from qrelay.runtime.otlp import metrics_data
from tests.conftest import eventually
from tests.pipeline.harness import DOUBLES, IMPATIENT, Installation

PROCESS = """
import logging, sys
from qrelay.config import TelemetrySettings
from qrelay.runtime import telemetry
from qrelay.runtime.otlp import setup_export

telemetry.setup_logging("judge", "INFO")
setup_export("judge", TelemetrySettings(otlp_endpoint=sys.argv[1], otlp_signals=sys.argv[2].split(",")))
with telemetry.span("judging"):
    logging.getLogger("qrelay.test").warning(
        "asked %s", "https://me:hunter2@host", extra={"api_key": "hunter2", "took": {"s": 1.5}}
    )
try:
    raise ValueError("the words of a query")
except ValueError:
    logging.getLogger("qrelay.test").exception("failed")
logging.getLogger("opentelemetry.exporter").warning("of the export itself")
telemetry.COMMITS.labels("committed").inc(3)
"""


class Collector:
    """What came: requests of each kind, flat."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[tuple[str, str], Any] = {}
        self.logs: list[tuple[str, Any]] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_grpc.add_TraceServiceServicer_to_server(_Service(self._traces, trace_pb, "Trace"), self._server)
        metrics_grpc.add_MetricsServiceServicer_to_server(
            _Service(self._metrics, metrics_pb, "Metrics"), self._server
        )
        logs_grpc.add_LogsServiceServicer_to_server(_Service(self._logs, logs_pb, "Logs"), self._server)
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(None)

    def _traces(self, request: Any) -> None:
        self.spans += [span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]

    def _metrics(self, request: Any) -> None:
        for each in request.resource_metrics:
            for found in each.scope_metrics[0].metrics:
                self.metrics[_service(each), found.name] = found

    def _logs(self, request: Any) -> None:
        for each in request.resource_logs:
            self.logs += [(_service(each), record) for scope in each.scope_logs for record in scope.log_records]


def _service(each: Any) -> str:
    return next(a.value.string_value for a in each.resource.attributes if a.key == "service.name")


class _Service:
    def __init__(self, take: Any, module: Any, kind: str) -> None:
        self._take, self._answer = take, getattr(module, f"Export{kind}ServiceResponse")

    def Export(self, request: Any, _: Any) -> Any:
        self._take(request)
        return self._answer()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


def told(record: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in record.attributes}


def run(collector: Collector, signals: str) -> None:
    subprocess.run([sys.executable, "-c", PROCESS, collector.url, signals], check=True)


def test_a_process_that_ends_has_sent_its_span_its_metrics_and_its_log_lines(collector: Collector) -> None:
    run(collector, "traces,metrics,logs")
    (span,) = collector.spans
    (service, warned), (_, failed) = collector.logs
    assert (service, span.name, span.trace_id) == ("qrelay-judge", "judging", warned.trace_id)
    assert (warned.severity_text, warned.severity_number, failed.severity_number) == ("WARNING", 13, 17)
    assert warned.body.string_value == "asked https://me:***@host"
    assert told(warned) == {"service": "judge", "logger": "qrelay.test", "api_key": "***", "took": '{"s": 1.5}'}
    assert "ValueError" in told(failed)["exception"] and "words of a query" not in str(collector.logs)
    commits = collector.metrics["qrelay-judge", "qrelay_commits"].sum
    assert commits.is_monotonic and [each.as_double for each in commits.data_points] == [3.0]


def test_only_what_is_asked_for_is_sent(collector: Collector) -> None:
    run(collector, "traces")
    assert (len(collector.spans), collector.logs, collector.metrics) == (1, [], {})


def test_metrics_are_those_that_prometheus_reads() -> None:
    registry = CollectorRegistry()
    counter = Counter("asked", "Calls", ["who"], registry=registry)
    gauge = Gauge("ready", "Whether", registry=registry)
    histogram = Histogram("took_seconds", "Time", ["stage"], buckets=(1.0, 5.0), registry=registry)
    counter.labels("ana").inc(2)
    gauge.set(0.5)
    for value in (0.5, 0.7, 3.0, 99.0):
        histogram.labels("judge").observe(value)
    data = metrics_data(registry.collect(), Resource.create({}), 1, 2)
    found = {each.name: each for each in data.resource_metrics[0].scope_metrics[0].metrics}
    assert {name: each.description for name, each in found.items()} == {
        "asked": "Calls", "ready": "Whether", "took_seconds": "Time"
    }  # fmt: skip
    (point,) = found["asked"].data.data_points
    assert (point.attributes, point.value) == ({"who": "ana"}, 2)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (1, 2)
    assert [each.value for each in found["ready"].data.data_points] == [0.5]
    (point,) = found["took_seconds"].data.data_points
    assert (point.attributes, point.count, point.sum) == ({"stage": "judge"}, 4, 103.2)
    assert (point.explicit_bounds, point.bucket_counts) == ([1.0, 5.0], [2, 1, 1])


async def test_running_services_send_all_three_to_one_place(collector: Collector, tmp_path: Any) -> None:
    logging.getLogger("qrelay").info("this process sends nothing")
    told_to = {
        "QRELAY_ALL__TELEMETRY__OTLP_ENDPOINT": collector.url,
        "QRELAY_ALL__TELEMETRY__OTLP_SIGNALS": '["traces", "metrics", "logs"]',
        "QRELAY_ALL__TELEMETRY__OTLP_METRICS_EVERY_S": "0.5",
    }
    services = {"qrelay-retriever", "qrelay-reranker", "qrelay-judge", "qrelay-sink"}
    with Installation(tmp_path, {**DOUBLES, **IMPATIENT, **told_to}) as running:
        asked = running.run("feed", "-", "--collection", "docs", stdin='{"query_id": "q1", "text": "where?"}\n')
        assert asked["exit"] == 0
        await eventually(lambda: ("qrelay-sink", "qrelay_commits") in collector.metrics)
        await eventually(lambda: {service for service, _ in collector.logs} >= services)
        await eventually(lambda: len({span.trace_id for span in collector.spans}) >= 1)
    assert {service for service, name in collector.metrics if name == "qrelay_ready"} >= services
    assert "where?" not in str(collector.logs)
