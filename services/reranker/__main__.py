"""Run the reranker alone: `python -m qrelay.services.reranker`; settings come from QRELAY_CONFIG and QRELAY_…."""

import sys

from qrelay.runtime.service import main
from qrelay.services.reranker.service import SERVICE

if __name__ == "__main__":
    sys.exit(main(SERVICE))
