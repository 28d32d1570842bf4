"""Run the sink alone: `python -m qrelay.services.sink`; settings come from QRELAY_CONFIG and QRELAY_…."""

import sys

from qrelay.runtime.service import main
from qrelay.services.sink.service import SERVICE

if __name__ == "__main__":
    sys.exit(main(SERVICE))
