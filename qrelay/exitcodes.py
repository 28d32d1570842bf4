"""Exit codes that scripts can trust: the one table. docs/cli.md and `qrelay --help` show it."""

import signal
from collections.abc import Mapping
from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_PARTIAL: Final = 3
"""Finished, but some items were rejected or dead-lettered; the output says which."""
EXIT_GATE: Final = 4
"""Finished, and what was found violates a condition that was asked for (`--fail-on`, the gate's rules)."""
EXIT_NOT_ENOUGH: Final = 5
"""`qrelay train --job`: too few training queries, nothing was published."""
EXIT_BUSY: Final = 75
"""Another process does this already (sysexits.h EX_TEMPFAIL): no failure to whoever started both."""
EXIT_DENIED: Final = 77
"""A service does not know who asks, or they have not the role (sysexits.h EX_NOPERM)."""
EXIT_SETUP: Final = 78
"""Settings, model, index or port wrong: somebody has to act (sysexits.h EX_CONFIG)."""
EXIT_CANNOT_RUN: Final = 127
"""The command of a training job cannot be started, as a shell says it."""
EXIT_TERMINATED: Final = 128 + signal.SIGTERM
"""Ended by SIGTERM, as a shell says it."""

MEANINGS: Final[Mapping[int, str]] = {
    EXIT_OK: "done",
    EXIT_FAILED: "failed, or interrupted; the error says why",
    EXIT_USAGE: "wrong usage: no such command, option or value",
    EXIT_PARTIAL: "finished, but some items were rejected, dead-lettered or not made",
    EXIT_GATE: "finished, and a condition of --fail-on or the gate is violated",
    EXIT_NOT_ENOUGH: "a training job had too few queries; nothing was published",
    EXIT_BUSY: "another process does this already",
    EXIT_DENIED: "a service does not know who asks, or they have not the role",
    EXIT_SETUP: "settings, model, index or port are wrong: somebody has to act",
    EXIT_CANNOT_RUN: "the command of a training job cannot be started",
    EXIT_TERMINATED: "ended by SIGTERM",
}
"""Code -> what it means, in at most 70 characters."""
