"""A ledger in a temporary folder, with a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sink.ledger.ledger import Ledger
from tests.sink.builders import later


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.sqlite", busy_timeout_s=0.2, clock=lambda: later(60))
    yield opened
    opened.close()
