"""One model at a time is loaded in a process: transformers changes torch and itself while it loads, and two loads
that overlap leave that behind (weights that nobody filled: "Cannot copy out of meta tensor", in every later load)."""

from __future__ import annotations

import threading
from typing import Final

ONE_AT_A_TIME: Final = threading.Lock()
