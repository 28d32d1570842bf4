"""OpenVINO beside Python: what a library must not do to the process that loads it."""

from __future__ import annotations

import subprocess
import sys

AFTER_COMPUTING = """
import os, signal, sys, tempfile, torch
from pathlib import Path
from qrelay.models.openvino import Compiled
from qrelay.models.openvino_copies import quantise_weights, save_traced
layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)).eval()
quantise_weights(layers)
with tempfile.TemporaryDirectory() as folder:
    graph = Path(folder) / "layers.xml"
    save_traced(layers, {"input": torch.ones(2, 64)}, graph)
    answer = Compiled(graph, threads=2)({"input": torch.ones(2, 64).numpy()})
signal.signal(signal.SIGTERM, lambda *_: print("handled", answer.shape))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_computing_reaches_its_handler() -> None:
    done = subprocess.run([sys.executable, "-c", AFTER_COMPUTING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled (2, 8)\n"), done.stderr
