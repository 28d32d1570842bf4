"""Run the reranker alone: `python -m services.reranker`, settings from QRELAY_CONFIG and QRELAY_… variables."""

import sys

from qrelay.runtime.service import main
from services.reranker.service import SERVICE

if __name__ == "__main__":
    sys.exit(main(SERVICE))
