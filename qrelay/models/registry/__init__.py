"""The model registry: trained versions, what the gate said of them, and which one serves.

    manifest.py   what a version is: its bytes, and everything that made them
    events.py     the append-only history, one file an event
    state.py      what the history says: states, serving versions, taints (pure)
    slots.py      the default slots, and collections' own
    serving.py    what a service loads
    rules.py      who may be promoted, what a slot can go back to, whose model may go (pure)
    versions.py   the folders of versions
    staging.py    where files are made before they are put in place; leftovers of killed processes
    registry.py   publish, gate, promote, roll back, retract, prune

A folder on a disk that the trainer, the sink and the services share:

    registry/
      versions/<version>/manifest.json   written once, with the folder
      versions/<version>/model/          a sentence-transformers folder
      events/00000001.json               one file an event, numbered without gaps
      staging/                           what is being made; of no meaning

There is no file that says which version serves: that follows from the events, so no crash can leave two answers.
"""

from qrelay.models.registry.manifest import DataSource, JudgeRef, Manifest
from qrelay.models.registry.registry import Registry
from qrelay.models.registry.serving import ServedVersion, Serving
from qrelay.models.registry.slots import BI_ENCODER, CROSS_ENCODER, KINDS, collection_of, kind_of, slot_of
from qrelay.models.registry.state import State, VersionState

__all__ = [
    "BI_ENCODER", "CROSS_ENCODER", "KINDS", "DataSource", "JudgeRef", "Manifest", "Registry", "ServedVersion",
    "Serving", "State", "VersionState", "collection_of", "kind_of", "slot_of",
]  # fmt: skip
