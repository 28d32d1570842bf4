"""Logs, metrics and traces: how they are set up, and every metric's name in one place.

Logs are one JSON object a line on standard error. They never hold a passage's or a query's text.
Metrics are Prometheus', served at `telemetry.metrics_bind`/metrics; `qrelay top` reads them too.
Spans are OpenTelemetry's; their context travels in gRPC metadata and in message headers as `traceparent`,
so that one query is one trace from the feed to the ledger. `otlp.py` sends all three to a collector.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from qrelay.config import ServiceSettings, TlsSettings
from qrelay.errors import AccessError, PortInUse, QrelayError
from qrelay.runtime.errorcodes import codes
from qrelay.security.expiry import Validity, validity
from qrelay.security.tls import Files, Renewed, server_context
from qrelay.settings.secrets import masked

log = logging.getLogger(__name__)

_METRICS_S: Final = 10.0
"""Seconds in which a reader of metrics has to get on."""
_CERTIFICATE_S: Final = 3600.0
"""Seconds between warnings of a certificate that is due."""
SECONDS_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
TENTHS_BUCKETS: Final = tuple(tenth / 10 for tenth in range(1, 11))
ITEMS_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

ITEMS = Counter("qrelay_items", "Queue items by what became of them", ["stage", "outcome"])
BATCHES = Counter("qrelay_batches", "Batches handled", ["stage"])
BATCH_ITEMS = Histogram("qrelay_batch_items", "Items in a batch", ["stage"], buckets=ITEMS_BUCKETS)
QUEUE_SECONDS = Histogram(
    "qrelay_queue_seconds", "From publication to the start of handling", ["stage"], buckets=SECONDS_BUCKETS
)
COMPUTE_SECONDS = Histogram("qrelay_compute_seconds", "Handling of a batch", ["stage"], buckets=SECONDS_BUCKETS)
HELD_ITEMS = Gauge("qrelay_held_items", "Messages taken from the queue and not yet acked", ["stage"])
ON_HOLD = Gauge(
    "qrelay_on_hold_until_seconds", "When a stage that is on hold tries again, in Unix time; 0: it works", ["stage"]
)
LAG_ITEMS = Gauge("qrelay_lag_items", "Messages of a queue not yet done, delivered ones included", ["hop"])
QUEUE_BYTES = Gauge("qrelay_queue_bytes", "Bytes that a queue's stream holds", ["hop"])
NATS_DENIED = Counter(
    "qrelay_nats_denied", "What NATS did not allow: publish, subscription, or the whole connection", ["operation"]
)
GRPC_CALLS = Counter("qrelay_grpc_calls", "gRPC calls by method and status code", ["method", "code"])
GRPC_SECONDS = Histogram("qrelay_grpc_seconds", "Duration of unary gRPC calls", ["method"], buckets=SECONDS_BUCKETS)
GRPC_BATCH_ITEMS = Histogram(
    "qrelay_grpc_batch_items", "Items in a batch of gRPC calls", ["service"], buckets=ITEMS_BUCKETS
)
GRPC_COMPUTE_SECONDS = Histogram(
    "qrelay_grpc_compute_seconds", "The core's work on a batch of gRPC calls", ["service"], buckets=SECONDS_BUCKETS
)
HTTP_CALLS = Counter("qrelay_http_calls", "The console's requests by route and HTTP status", ["route", "status"])
HTTP_SECONDS = Histogram(
    "qrelay_http_seconds", "From a console's request to its answer's beginning", ["route"], buckets=SECONDS_BUCKETS
)
DENIALS = Counter(
    "qrelay_denials", "Calls and requests refused for who asked, by what was asked and why", ["what", "reason"]
)
CERTIFICATE_EXPIRES = Gauge(
    "qrelay_certificate_expires_timestamp_seconds",
    "When the process's own certificate ends, in Unix time; 0: it has none",
)
CERTIFICATE_RENEW_BY = Gauge(
    "qrelay_certificate_renew_by_timestamp_seconds",
    "When a third of its lifetime is left, or a week if that is shorter, in Unix time; 0: it has none",
)
RATE_LIMITED = Counter(
    "qrelay_rate_limited", "Calls and requests refused by access.rates, by the line's name there", ["caller"]
)
PENDING_ITEMS = Gauge("qrelay_pending_items", "Items that gRPC calls hold now")
READY = Gauge("qrelay_ready", "1 when the model is loaded and the service answers")
JUDGMENTS = Counter("qrelay_judgments", "Judgments: graded, cached or missing, the latter with reason", ["outcome"])
GRADES = Counter("qrelay_grades", "Judgments by grade, or missing", ["collection", "strategy", "grade"])
P_RELEVANT = Histogram("qrelay_p_relevant", "P(relevant)", ["collection", "strategy"], buckets=TENTHS_BUCKETS)
PROMPT_TOKENS = Counter("qrelay_prompt_tokens", "LLM tokens paid for")
COLLECTION_TOKENS = Counter("qrelay_collection_prompt_tokens", "LLM tokens paid for, by collection", ["collection"])
RERANKER_PAIRS = Counter(
    "qrelay_reranker_pairs", "Pairs that the reranker scored, by the scorer's system", ["system"]
)
UNSCORED = Counter("qrelay_unscored_candidates", "Candidates that the reranker's model gave no finite score")
TEXTS_DROPPED = Counter("qrelay_texts_dropped", "Passages that lost their text to a queue's message limit", ["stage"])
SKIPPED_PAIRS = Counter("qrelay_skipped_pairs", "Pairs that early stopping left out")
CASCADE_PAIRS = Counter("qrelay_cascade_pairs", "Pairs that the cascade's small side judged")
CASCADE_ESCALATIONS = Counter("qrelay_cascade_escalations", "Pairs that went up to the large judge, audits included")
CASCADE_AUDITS = Counter("qrelay_cascade_audits", "Sure answers of the small side that the large judge checked")
CASCADE_DISAGREEMENTS = Counter("qrelay_cascade_audit_disagreements", "Of these, those where it said otherwise")
CASCADE_DRIFT = Gauge("qrelay_cascade_drift", "1 while audited errors exceed what the calibration promised")
BUDGET = Gauge("qrelay_budget_tokens", "Limit of prompt tokens of the run or the day", ["period"])
BUDGET_PRICE = Gauge("qrelay_budget_price", "Price of a million prompt tokens; 0: none is set")
BUDGET_LEFT = Gauge("qrelay_budget_left_tokens", "Prompt tokens left of the run's or day's budget", ["period"])
COMMITS = Counter("qrelay_commits", "Judged sets at the ledger: committed or duplicate", ["outcome"])
TRAINING_TRIGGERS = Counter("qrelay_training_triggers", "Triggers whose job was launched, by rule", ["rule"])
TRAINING_RUNS = Counter("qrelay_training_runs", "Training jobs that came to run, succeed or fail", ["state"])
TRAINING_LAUNCH_ERRORS = Counter(
    "qrelay_training_launch_errors", "Launches that failed: retried, or refused for good", ["outcome"]
)
PUBLISHED_CHANGE = Gauge("qrelay_published_change", "The collection's last change that is published", ["collection"])
PUBLISHED_ROWS = Counter("qrelay_published_rows", "Rows that were published, by collection", ["collection"])
PUBLISH_HELD = Gauge(
    "qrelay_publish_held_until_seconds", "When publishing that is on hold tries again, in Unix time; 0: it works",
    ["collection"],
)  # fmt: skip

_STANDARD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def denied(who: object, what: str, error: AccessError, peer: str) -> None:
    """Logs and counts a refusal. who: None, where nobody knows; what: the method, or the console's action."""
    DENIALS.labels(what, error.reason).inc()
    log.warning("denied", extra={"who": str(who or "nobody"), "what": what, "why": str(error), "peer": peer})


class JsonFormatter(logging.Formatter):
    """One JSON object a line; whatever `extra=` carried becomes a field. What a foreign exception says may quote a
    text: it is shown at level DEBUG alone."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record's entry as JSON."""
        return json.dumps(self.entry(record), default=lambda value: masked(str(value)), ensure_ascii=False)

    def entry(self, record: logging.LogRecord) -> dict[str, object]:
        """The record with time (UTC), level, service, logger, message and extras, secrets masked."""
        entry: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            entry["trace_id"] = f"{span.trace_id:032x}"
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS})
        if record.exc_info and record.exc_info[1]:
            whole = logging.getLogger().isEnabledFor(logging.DEBUG)
            entry["exception"] = self.formatException(record.exc_info) if whole else _told(record.exc_info[1])
        found: dict[str, object] = masked(entry)
        return found


def _told(error: BaseException) -> str:
    """Where the error and those behind it were raised, each with its class and codes, our own with their words."""
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = [f"{_told(behind)}\nwhich led to"] if behind else []
    said = f": {error}" if isinstance(error, QrelayError) else codes(error)
    frames = "".join(traceback.format_tb(error.__traceback__))
    inner = [_told(each) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    return "\n".join([*before, f"{frames}{type(error).__module__}.{type(error).__qualname__}{said}", *inner])


def setup_logging(service: str, level: str) -> None:
    """All logs to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "urllib3", "sentence_transformers", "bm25s", "transformers"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def warn_exposed(settings: ServiceSettings) -> None:
    """What `insecure` allows, loudly."""
    for line in settings.exposed:
        log.warning("INSECURE: %s", line)


class _MetricsServer(ThreadingWSGIServer):
    """/metrics, where asked for with certificates: whoever reads it shows one. A handshake is made in its request's
    own thread, so that one who makes none keeps nobody else waiting."""

    context: Renewed | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """One connection."""
        request.settimeout(_METRICS_S)
        if self.context:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError as error:
                log.info("metrics: no handshake: %s", error, extra={"client": client_address[0]})
                return
        super().finish_request(request, client_address)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing a request."""


def setup_metrics(bind: str, tls: TlsSettings | None = None) -> str:
    """Serve /metrics; returns the address bound, as host:port. tls: with certificates, readers have to show theirs.

    Raises:
        PortInUse: another process listens there.
        ConfigError: the certificate's files do not hold.
    """
    host, _, port = bind.rpartition(":")
    _MetricsServer.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = make_server(host.strip("[]") or "127.0.0.1", int(port), make_wsgi_app(), _MetricsServer, _Quiet)
    except OSError as error:
        raise PortInUse(
            f"telemetry.metrics_bind {bind}: {error.strerror}; stop what listens there or take port 0"
        ) from error
    if tls and tls.enabled:
        server.context = server_context(tls)
        _watch_certificate(server.context.files)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return f"{host or '127.0.0.1'}:{server.server_port}"


def _watch_certificate(files: Files) -> None:
    """Metrics of the certificate in force, and a warning, at once and then every hour, from when it is due."""

    def held() -> Validity | None:
        return validity(files.current().certificate)

    def warn() -> None:
        if (found := held()) and datetime.now(UTC) >= found.renew_by:
            log.warning(
                "this process's certificate expires at %s UTC: renew its files", f"{found.ends:%Y-%m-%d %H:%M}"
            )

    def keep_warning() -> None:
        while True:
            time.sleep(_CERTIFICATE_S)
            warn()

    CERTIFICATE_EXPIRES.set_function(lambda: found.ends.timestamp() if (found := held()) else 0.0)
    CERTIFICATE_RENEW_BY.set_function(lambda: found.renew_by.timestamp() if (found := held()) else 0.0)
    warn()
    threading.Thread(target=keep_warning, name="certificate", daemon=True).start()


def tracer() -> trace.Tracer:
    """qrelay's tracer; no-op spans unless tracing was set up."""
    return trace.get_tracer("qrelay")


@contextmanager
def span(
    name: str, parent: Context | None = None, kind: trace.SpanKind = trace.SpanKind.INTERNAL
) -> Iterator[trace.Span]:
    """A current span. An error in it leaves its class and no word of it, for it may quote a text."""
    with tracer().start_as_current_span(
        name, context=parent, kind=kind, record_exception=False, set_status_on_exception=False
    ) as found:
        try:
            yield found
        except BaseException as error:
            found.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


def remote_context(carrier: Mapping[str, str]) -> Context:
    """The trace context that a message or a call carries."""
    return propagate.extract(carrier)


def trace_context() -> list[tuple[str, str]]:
    """Metadata of a call by which the caller's span, where one is active, becomes the parent of the service's."""
    carrier: dict[str, str] = {}
    inject_context(carrier)
    return [*carrier.items()]


def inject_context(carrier: dict[str, str], span_context: Context | None = None) -> None:
    """Write `traceparent` of the given (or current) context into headers."""
    propagate.inject(carrier, span_context if span_context is not None else context.get_current())
