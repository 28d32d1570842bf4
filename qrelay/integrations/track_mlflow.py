"""MLflow: a record is a run, a version a registered model's version as well, whose alias `serving` follows the
registry. `pip install 'qrelay[mlflow]'`."""

from __future__ import annotations

import os
import re
import time
from typing import Any, Final

from qrelay.chunks import chunks
from qrelay.integrations import library
from qrelay.integrations.tracking import Record, refusals

with library("mlflow"):
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

ID: Final = "qrelay.id"
SERVING: Final = "serving"
EXPERIMENT: Final = "qrelay"
"""Where MLFLOW_EXPERIMENT_NAME names none."""
_NOT_IN_NAMES: Final = re.compile(r"[^\w\-. /]")
_AT_ONCE: Final = 100
"""Parameters, or metrics, of a request: as many as each of MLflow's servers takes."""


def opened() -> MlflowTracker:
    """By MLflow's own variables. Raises BackendUnavailable."""
    with refusals("MLflow"):
        return MlflowTracker()


class MlflowTracker:
    """See `qrelay.integrations.tracking.Tracker`."""

    def __init__(self) -> None:
        self._client = MlflowClient()

    def log(self, record: Record) -> None:
        """A run that was begun and not ended is logged again; of one that was, only the tags."""
        with refusals("MLflow"):
            experiment = self._experiment()
            known = self._client.search_runs([experiment], f"tags.`{ID}` = '{record.identity}'", max_results=1)
            run = known[0] if known else self._begun(experiment, record)
            for name, value in record.tags.items():
                self._client.set_tag(run.info.run_id, name, value)
            if run.info.status != "FINISHED":
                self._fill(run.info.run_id, record)
            if record.model:
                self._register(run.info.run_id, record)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _begun(self, experiment: str, record: Record) -> Any:
        return self._client.create_run(
            experiment, run_name=record.name, tags={ID: record.identity, "qrelay.kind": record.kind}
        )

    def _fill(self, run_id: str, record: Record) -> None:
        now = time.time_ns() // 1_000_000
        points = [*record.curve, (0, record.metrics)]
        metrics = [Metric(_named(name), value, now, step) for step, found in points for name, value in found.items()]
        for some in chunks([Param(_named(name), value) for name, value in record.params.items()], _AT_ONCE):
            self._client.log_batch(run_id, params=some)
        for some in chunks(metrics, _AT_ONCE):
            self._client.log_batch(run_id, metrics=some)
        for name, document in record.documents.items():
            self._client.log_dict(run_id, document, name)
        self._client.set_terminated(run_id)

    def _register(self, run_id: str, record: Record) -> None:
        """The registry keeps the weights: MLflow is told where they are."""
        assert record.model
        name = record.slot.replace(":", ".")
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        known = self._client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        made = known[0] if known else self._client.create_model_version(
            name, record.model.resolve().as_uri(), run_id, tags={ID: record.identity}
        )  # fmt: skip
        for tag, value in record.tags.items():
            self._client.set_model_version_tag(name, made.version, tag, value)
        served = self._client.get_registered_model(name).aliases.get(SERVING)
        if record.serving:
            self._client.set_registered_model_alias(name, SERVING, made.version)
        elif served is not None and str(served) == str(made.version):
            self._client.delete_registered_model_alias(name, SERVING)


def _named(name: str) -> str:
    """MLflow's names hold no @: nDCG_10."""
    return _NOT_IN_NAMES.sub("_", name)
