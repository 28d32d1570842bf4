"""The Python blocks of the page on other people's tools run, one after the other, against running services."""

from __future__ import annotations

from typing import Any

import pytest

from qrelay import Client
from tests.client.test_documents import blocks


def test_every_python_block_runs_in_order(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QRELAY_DATA_DIR", str(client.data_dir))
    first, *rest = blocks("docs/integrations.md")
    names: dict[str, Any] = {}
    exec(first, names)
    names.pop("client").close()
    names["client"] = client  # the same, for a machine that has other things to do
    for each in rest:
        exec(each, names)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 9 and {told[n].split()[0] for n in (0, 3, 6)} == {"moon#0"}
    assert "QrelayRetriever" in names["loaded"].dumps()
