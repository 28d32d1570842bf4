"""The Python client: `Client`, and `AsyncClient`, which does the work.

    from qrelay import Client

| module | job |
|---|---|
| `asynchronous.py`, `blocking.py` | the calls |
| `flow.py`, `requests.py` | many items through one stream, in order, a bounded number in flight |
| `patience.py`, `places.py` | attempts and deadlines; addresses and channels |
| `inputs.py`, `results.py`, `frames.py` | what calls take; what they give, and as data frames |
| `feeding.py`, `waiting.py`, `ledger.py` | feed; wait; labels and exports |
| `local.py` | services that run as long as their client |
"""

from qrelay.client.asynchronous import AsyncClient
from qrelay.client.blocking import Client
from qrelay.client.ledger import Exported
from qrelay.client.results import AsyncResults, Results
from qrelay.client.waiting import Ended

__all__ = ["AsyncClient", "AsyncResults", "Client", "Ended", "Exported", "Results"]
