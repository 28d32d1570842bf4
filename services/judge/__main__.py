"""Run the judge alone: `python -m services.judge`, settings from QRELAY_CONFIG and QRELAY_… variables."""

import sys

from qrelay.runtime.service import main
from services.judge.service import SERVICE

if __name__ == "__main__":
    sys.exit(main(SERVICE))
