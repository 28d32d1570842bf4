"""The console's real server beside the test, on a free port, over a real ledger in SQLite.

with console(tmp_path) as site:
    assert site.http.get("/").status_code == 200
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.routing import BaseRoute

from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.settings import SinkSettings
from qrelay.types import JudgedSet
from qrelay.web.app import ROUTES
from qrelay.web.serving import address_of, listen, server
from qrelay.web.settings import ConsoleSettings
from qrelay.web.site import Site
from tests.conftest import LONG_S
from tests.labels.builders import judged_set

DATA = "data"


@dataclass(frozen=True)
class Served:
    """A running console. `http`: a client of it without a browser's habits; `ledger`: what it reads."""

    url: str
    http: httpx.Client
    ledger: Ledger
    site: Site
    folder: Path

    def token(self) -> str:
        """The token that forms repeat; the client holds the cookie from then on."""
        self.http.get("/", headers={"accept": "text/html"})
        return str(self.http.cookies["qrelay_csrf"])

    def post(self, path: str, **fields: str) -> httpx.Response:
        """A form sent as the console's own page sends it."""
        headers = {"origin": self.url, "sec-fetch-site": "same-origin", "accept": "text/html"}
        return self.http.post(path, data={"csrf": self.token(), **fields}, headers=headers)


@contextmanager
def console(
    folder: Path,
    sets: Sequence[JudgedSet] = (judged_set("q1"), judged_set("q2")),
    routes: Sequence[BaseRoute] = ROUTES,
    **settings: Any,
) -> Iterator[Served]:
    """A running console over a ledger that holds these sets; `settings`: fields of the console's."""
    data = folder / DATA
    ledger = Ledger.open(data / "ledger.sqlite")
    assert all(not isinstance(each, Exception) for each in ledger.commit(sets))
    site = Site(ConsoleSettings(data_dir=data, bind="127.0.0.1:0", **settings), SinkSettings(data_dir=data))
    with listen(site.settings.bind) as listening:
        url, running = f"http://{address_of(listening)}", server(site, routes)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        while not running.started and thread.is_alive():
            time.sleep(0.01)
        try:
            with httpx.Client(base_url=url, timeout=LONG_S) as http:
                yield Served(url, http, ledger, site, folder)
        finally:
            running.should_exit = True
            thread.join()
            ledger.close()
