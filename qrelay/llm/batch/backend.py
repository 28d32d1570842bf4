"""The backend: OpenAI's, its requests by batches."""

from __future__ import annotations

from typing import Any

from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.llm.base import Weights
from qrelay.llm.batch.api import BatchApi
from qrelay.llm.batch.connection import BatchConnection
from qrelay.llm.batch.driver import BatchDriver
from qrelay.llm.batch.limits import BatchLimits, Budget
from qrelay.llm.batch.records import BatchStore
from qrelay.llm.openai import NAMES, OpenAIBackend


class OpenAIBatchBackend(OpenAIBackend):
    """See the package. It asks and reads as `OpenAIBackend`, and its labels have the same identities."""

    def __init__(
        self,
        url: str,
        weights: Weights,
        *,
        account: str,
        store: BatchStore,
        api_key: str,
        policy: Policy,
        limits: Limits,
        batch: BatchLimits,
        budget: Budget,
        transfer_s: float,
        most_output_bytes: int,
        orders: bool = True,
        threaded: bool = True,
        **asks: Any,
    ) -> None:
        """account: whose batches, whatever tells it from others. orders: whether requests are written down to be
        sent,
        or only answers that are there are read. threaded: whether a thread drives the batches; else `driver` is
        ticked by whoever made this. asks: what `OpenAIBackend` takes."""

        def api() -> BatchApi:
            return BatchApi(
                url, api_key=api_key, policy=policy, limits=limits, transfer_s=transfer_s,
                most_bytes=most_output_bytes,
            )  # fmt: skip

        self.driver = BatchDriver(account, store, api, batch, budget=budget, threaded=threaded)
        connection = BatchConnection(
            account, store, self.driver if orders else None, url=url, api_key=api_key, policy=policy, limits=limits,
            names=NAMES,
        )  # fmt: skip
        super().__init__(url, weights, api_key=api_key, policy=policy, limits=limits, connection=connection, **asks)
