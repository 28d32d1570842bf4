"""Run the retriever alone: `python -m services.retriever`, settings from QRELAY_CONFIG and QRELAY_… variables."""

import sys

from qrelay.runtime.service import main
from services.retriever.service import SERVICE

if __name__ == "__main__":
    sys.exit(main(SERVICE))
