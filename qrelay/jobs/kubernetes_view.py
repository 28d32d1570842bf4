"""A local view of a sink's Jobs that a thread keeps by a watch: a look at a running Job asks the server nothing.

List, then watch from there; whatever ends the watch (its time, a dropped connection, 410 Gone, a refusal) is followed
by a pause and another list. While there is no watch the view knows nothing (`get` is None) and the launcher asks the
server. The client library's own informer is not used: it goes round without a pause where the server refuses the
watch, and waits for ever on a connection that died without a word.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import atexit
import logging
import threading
from typing import Any, Final

from qrelay.errors import QrelayError
from qrelay.jobs.kubernetes_api import KubernetesApi, Object

log = logging.getLogger(__name__)

_WATCH_S: Final = 120
"""Seconds of one watch; then everything is listed again. A connection that dies without a word hides so long what
happens."""
_PAUSE_S: Final = 1.0
_PAUSE_MAX_S: Final = 60.0
_STOP_POLL_S: Final = 0.02


class JobView:
    """See the module. `watch_s`: seconds of one watch; `pause_s`: before the first new try after one ended, doubled
    with each that fails."""

    def __init__(self, api: KubernetesApi, *, watch_s: int = _WATCH_S, pause_s: float = _PAUSE_S) -> None:
        self._api = api
        self._watch_s = watch_s
        self._first_pause_s = pause_s
        self._pause_s = pause_s
        self._jobs: dict[str, Object] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watch: Any = None
        self._thread: threading.Thread | None = None

    @property
    def live(self) -> bool:
        """Whether there is a list, and a watch that keeps it."""
        with self._lock:
            return self._jobs is not None

    def get(self, name: str) -> Object | None:
        """The Job as the watch last saw it; None: not seen, ask the server."""
        with self._lock:
            return None if self._jobs is None else self._jobs.get(name)

    def start(self) -> None:
        """Begins to watch, unless it did or was closed."""
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="training-jobs", daemon=True)
                self._thread.start()
                atexit.register(self.close)  # a daemon thread that logs while the interpreter ends aborts it

    def close(self) -> None:
        """Ends the watch and waits for its thread: at once where it waits for events, and as long as one request may
        take where it lists. A daemon thread besides: it cannot keep the process."""
        self._stopping.set()
        atexit.unregister(self.close)
        with self._lock:
            thread = self._thread
        while thread is not None and thread.is_alive():
            if (watch := self._watch) is not None:
                watch.stop()  # again and again: a stream that begins just now forgets the last one
            thread.join(_STOP_POLL_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._list_and_watch()
                self._pause_s = self._first_pause_s
            except QrelayError as error:
                if not self._stopping.is_set():
                    log.warning("cannot watch training jobs", extra={"error": str(error), "pause_s": self._pause_s})
            finally:
                self._forget()
            self._stopping.wait(self._pause_s)
            self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)

    def _list_and_watch(self) -> None:
        """One list and one watch. Raises what the calls raise, as QrelayError."""
        from kubernetes.watch import Watch

        listed = self._api.list_jobs()
        with self._lock:
            self._jobs = {job["metadata"]["name"]: job for job in listed.get("items") or []}
        self._watch = Watch()
        version = str(listed["metadata"].get("resourceVersion") or "0")
        for event in self._api.watch_jobs(self._watch, version, self._watch_s):
            if self._stopping.is_set():
                return
            self._apply(event)
            self._pause_s = self._first_pause_s

    def _apply(self, event: Object) -> None:
        """ADDED, MODIFIED and DELETED; a BOOKMARK changes nothing."""
        job = event["raw_object"]
        name = job["metadata"].get("name")
        with self._lock:
            if self._jobs is None:
                return
            if event["type"] == "DELETED":
                self._jobs.pop(name, None)
            elif event["type"] in ("ADDED", "MODIFIED"):
                self._jobs[name] = job

    def _forget(self) -> None:
        self._watch = None
        with self._lock:
            self._jobs = None
