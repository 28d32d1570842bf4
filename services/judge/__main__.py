"""Run the judge alone: `python -m qrelay.services.judge`; settings come from QRELAY_CONFIG and QRELAY_…."""

import sys

from qrelay.runtime.service import main
from qrelay.services.judge.service import SERVICE

if __name__ == "__main__":
    sys.exit(main(SERVICE))
