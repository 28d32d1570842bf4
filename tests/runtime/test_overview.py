"""What an overview says where a service's figures cannot be read: that they are not known, and never a zero."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server
from rich.console import Console

from qrelay.cli.top import render
from qrelay.config import NatsSettings
from qrelay.runtime.overview import Look, Overview, summary

ITEMS = "qrelay_items_total{ok}"


class Figures:
    """A judge's /metrics, which can be shut and opened again."""

    def __init__(self, folder: Path) -> None:
        self.registry = CollectorRegistry()
        self.items = Counter("qrelay_items", "", ["outcome"], registry=self.registry)
        self.tokens = Counter("qrelay_prompt_tokens", "", registry=self.registry)
        self._folder = folder
        self.close: Callable[[], None] = lambda: None
        self.open()

    def open(self) -> None:
        server, thread = start_http_server(0, "127.0.0.1", self.registry)
        entry = {"service": "judge", "pid": os.getpid(), "grpc": "127.0.0.1:9",
                 "metrics": f"127.0.0.1:{server.server_port}"}  # fmt: skip
        (self._folder / "run").mkdir(exist_ok=True)
        (self._folder / "run" / "judge.json").write_text(json.dumps(entry))

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self.close = close


@pytest.fixture
def figures(tmp_path: Path) -> Iterator[Figures]:
    with ExitStack() as stack:
        found = Figures(tmp_path)
        stack.callback(lambda: found.close())
        yield found


def judge(state: dict[str, Any]) -> dict[str, Any]:
    return next(dict(row) for row in state["services"] if row["service"] == "judge")


async def test_a_look_that_fails_is_unknown_and_so_are_the_rates_on_both_sides_of_it(
    tmp_path: Path, figures: Figures
) -> None:
    overview = Overview(tmp_path, lambda: NatsSettings(url="nats://127.0.0.1:9"), name="test", patience_s=0)
    figures.items.labels("ok").inc(1000)
    first = judge(await overview.state())
    assert (first["up"], first["ok"], first["per_second"]) == (True, 1000, None)
    figures.items.labels("ok").inc(7)
    assert judge(await overview.state())["per_second"] > 0
    figures.close()
    state = await overview.state()
    row = judge(state)
    assert (row["up"], row["ready"], row["ok"], row["per_second"]) == (True, None, None, None)
    assert (state["prompt_tokens"], state["judgments"]["graded"], state["budget"]) == (None, None, {})
    figures.open()
    row = judge(await overview.state())
    assert (row["ok"], row["per_second"]) == (1007, None), "1007 items are not done in one look"
    assert judge(await overview.state())["per_second"] == 0
    await overview.close()


def test_what_begins_to_count_has_no_rate_before_its_second_look() -> None:
    late = summary(Look(0.0), Look(1.0, {"judge": {ITEMS: 500.0}}))
    assert (judge(late)["ok"], judge(late)["per_second"]) == (500, None)


@pytest.mark.parametrize(
    ("metrics", "words", "graded"),
    [({}, "judge (down)", "-"), ({"judge": None}, "judge (figures unknown)", "-"),
     ({"judge": {}}, "judge (not ready)", "0"), ({"judge": {"qrelay_ready": 1.0}}, "judge ", "0")],
)  # fmt: skip
def test_the_terminal_tells_what_is_unknown_from_what_is_down(
    metrics: dict[str, dict[str, float] | None], words: str, graded: str
) -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(render(summary(None, Look(0.0, metrics))))
    assert words in out.getvalue()
    assert f"judgments: {graded} graded (-/s)" in out.getvalue()
