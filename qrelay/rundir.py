"""Where things run: the data folder of `qrelay up`, and the addresses that its services announced in it.

<data>/settings.yaml  nats/  ledger.sqlite  judge-cache.sqlite  index/  feed/  logs/  run/<service>.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qrelay.errors import BackendUnavailable
from qrelay.parsing import json_document

DATA_DIR_VARIABLE = "QRELAY_DATA_DIR"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One running process. `grpc` and `metrics` are host:port; for nats and the console `grpc` is its URL."""

    service: str
    pid: int
    grpc: str
    metrics: str

    @property
    def http(self) -> bool:
        """Whether it answers HTTP and no gRPC."""
        return self.grpc.startswith(("http://", "https://"))

    @property
    def alive(self) -> bool:
        """Whether a process of this id still runs on this machine."""
        import psutil

        return bool(psutil.pid_exists(self.pid))


def endpoints(data_dir: Path) -> dict[str, Endpoint]:
    """What was announced under this data folder, by service name; dead processes are left out."""
    found = {}
    for file in sorted((data_dir / "run").glob("*.json")):
        try:
            endpoint = Endpoint(**json_document(file.read_bytes()))
            if endpoint.alive:
                found[endpoint.service] = endpoint
        except (OSError, ValueError, TypeError, OverflowError):
            continue  # a half-removed or foreign file announces nothing
    return found


def require(data_dir: Path, service: str) -> Endpoint:
    """The running service's endpoint.

    Raises:
        BackendUnavailable: it does not run from this folder; the text says what to do.
    """
    found = endpoints(data_dir).get(service)
    if found is None:
        raise BackendUnavailable(
            f"no {service} runs from {data_dir}: start `qrelay up --data-dir {data_dir}`, or give its address"
        )
    return found
