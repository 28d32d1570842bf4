"""What the measured processes say of themselves: /metrics of each, and the system of those on this machine.

Of a service on another machine memory is the resident set that /metrics shows, sampled once a second in between, so
that a peak between two windows is seen. On this one the peak is the kernel's own (VmHWM), child processes included:
their peaks are added up, which is an upper bound where they did not peak together.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from qrelay.bench.report import Histogram, Reading, Sample
from qrelay.config import PLAIN, Transport
from qrelay.errors import BackendUnavailable
from qrelay.runtime.lookout import fetched, metrics_of

HISTOGRAMS: Final[tuple[str, ...]] = (
    "qrelay_batch_items",
    "qrelay_grpc_batch_items",
    "qrelay_queue_seconds",
    "qrelay_compute_seconds",
    "qrelay_grpc_compute_seconds",
    "qrelay_grpc_seconds",
)
_BESIDE: Final = "dead"
"""Stages whose name holds this work on dead letters: not what is measured."""
_SAMPLE_S: Final = 1.0
_TIMEOUT_S: Final = 2.0
CLIENT: Final = "client"
"""The name under which the load generator itself is read: where it uses a whole core it limits what is measured."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """One look at a /metrics: plain samples summed over labels, by name and by name{outcome}; histograms."""

    values: Mapping[str, float] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)


def scrape(address: str, transport: Transport = PLAIN) -> Metrics:
    """The metrics at `address`: host:port, or a URL.

    Raises:
        BackendUnavailable: nothing answers there, or no metrics.
    """
    try:
        if "://" in address:
            return parse(fetched(address, _TIMEOUT_S, transport).decode())
        return parse(metrics_of(address, _TIMEOUT_S, transport))
    except Exception as error:  # also what HTTP's and Prometheus' parsers raise at another service's answer
        raise BackendUnavailable(
            f"no metrics at {address}: {error}; give --metrics the service's /metrics"
        ) from error


def parse(text: str) -> Metrics:
    """Metrics in Prometheus' text format.

    Raises:
        ValueError: not of that format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if _BESIDE in sample.labels.get("stage", ""):
                continue
            if sample.name.endswith("_bucket"):
                buckets[family.name][float(sample.labels["le"])] += sample.value
                continue
            values[sample.name] += sample.value
            for label in ("outcome", "hop"):
                if label in sample.labels:
                    values[f"{sample.name}{{{sample.labels[label]}}}"] += sample.value
    found = {
        name: Histogram.cumulative(buckets[name], values[f"{name}_sum"]) for name in HISTOGRAMS if name in buckets
    }
    return Metrics(dict(values), found)


@dataclass(frozen=True, slots=True)
class Process:
    """One process to read. `metrics`: host:port or URL, empty: none; `pid`: on this machine, 0: elsewhere."""

    metrics: str = ""
    pid: int = 0
    transport: Transport = PLAIN


class Scraper:
    """A Probe over named processes; a context manager that samples memory in between. `processes` is asked at each
    reading, as processes come and go."""

    def __init__(self, processes: Callable[[], Mapping[str, Process]], *, client: bool = True) -> None:
        """`client`: read this process too, as the load generator."""
        self._processes = processes
        self._client = client
        self._peaks: dict[str, float] = {}
        self._stopping = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._sampler.join()

    def read(self) -> Reading:
        """See report.Probe."""
        found = {name: sample for name, sample in self._read() if sample is not None}
        if self._client:
            found[CLIENT] = replace(local(os.getpid(), children=False), cpu_seconds=time.process_time())
        return found

    def _read(self) -> Iterator[tuple[str, Sample | None]]:
        for name, process in self._processes().items():
            yield name, self._one(name, process)

    def _one(self, name: str, process: Process) -> Sample | None:
        sample = Sample()
        with contextlib.suppress(BackendUnavailable):
            if process.metrics:
                sample = from_metrics(scrape(process.metrics, process.transport))
        if process.pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                return replace(local(process.pid), histograms=sample.histograms)
        if sample.rss_mib is None:
            return None
        peak = self._peaks[name] = max(sample.rss_mib, self._peaks.get(name, 0.0))
        return replace(sample, peak_rss_mib=peak)

    def _sample(self) -> None:
        while not self._stopping.wait(_SAMPLE_S):
            for name, process in self._processes().items():
                if not process.pid and process.metrics:
                    self._one(name, process)


def from_metrics(metrics: Metrics) -> Sample:
    """What /metrics alone tells."""
    rss = metrics.values.get("process_resident_memory_bytes")
    return Sample(
        cpu_seconds=metrics.values.get("process_cpu_seconds_total"),
        rss_mib=None if rss is None else rss / 2**20,
        histograms=metrics.histograms,
    )


def local(pid: int, *, children: bool = True) -> Sample:
    """CPU and memory of a process on this machine, and of its living children. CPU: user and system time so far, of
    children that have ended too.

    Raises:
        psutil.NoSuchProcess: it is gone.
    """
    process = psutil.Process(pid)
    cpu = rss = peak = 0.0
    for each in [process, *(process.children(recursive=True) if children else ())]:
        try:
            times, resident = each.cpu_times(), each.memory_info().rss / 2**20
        except psutil.Error:
            if each is process:
                raise
            continue  # a child that ended meanwhile
        cpu += times.user + times.system + times.children_user + times.children_system
        rss, peak = rss + resident, peak + max(resident, peak_mib(each.pid))
    return Sample(cpu, rss, peak)


def peak_mib(pid: int) -> float:
    """The kernel's own figure of the largest resident set (VmHWM), which psutil does not give; 0 without /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
