"""Run the retriever alone: `python -m qrelay.services.retriever`; settings come from QRELAY_CONFIG and QRELAY_…."""

import sys

from qrelay.runtime.service import main
from qrelay.services.retriever.service import SERVICE

if __name__ == "__main__":
    sys.exit(main(SERVICE))
