"""Exit codes that scripts can trust."""

from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_PARTIAL: Final = 3
"""Finished, but some items were rejected or dead-lettered; the output says which."""
EXIT_GATE: Final = 4
"""Finished, and what was found violates a condition that was asked for (`--fail-on`); the output says which."""
EXIT_SETUP: Final = 78
"""Settings, model, index or port wrong: somebody has to act (sysexits.h EX_CONFIG)."""
