"""Run the sink alone: `python -m services.sink`, settings from QRELAY_CONFIG and QRELAY_… variables."""

import sys

from qrelay.runtime.service import main
from services.sink.service import SERVICE

if __name__ == "__main__":
    sys.exit(main(SERVICE))
