"""Whether a collection's labels may train now: asked before a training is triggered, and before its job is launched.

It checks what an export of triples with people's decisions would contain, the trainer's default. The job's own export
checks again, exactly what it takes: labels may arrive in between.
"""

from __future__ import annotations

from qrelay.errors import InputError, NotQualified
from qrelay.jobs.decisions import trigger_manually
from qrelay.labels.exports.catalogue import TRIPLES
from qrelay.labels.exports.export import require_permitted
from qrelay.labels.exports.request import Request
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.outbox import Trigger
from qrelay.labels.permission import NOTHING, Allowed
from qrelay.labels.qualification import read_report
from qrelay.labels.settings import SinkSettings


def allowed_of(settings: SinkSettings) -> Allowed:
    """What the settings allow every training of this installation."""
    return Allowed(settings.training.unmeasured, settings.training.unqualified)


def require_permission(ledger: Ledger, collection: str, settings: SinkSettings, allowed: Allowed = NOTHING) -> None:
    """Returns where a training of the collection may start now. `allowed`: beside what the settings allow.

    Raises:
        NotQualified: a label's judge may not train; see `labels/permission.py`.
        ConfigError: the report of `sink.qualification` cannot be read.
        BackendUnavailable: the ledger does not answer.
    """
    allowed |= allowed_of(settings)
    if allowed == Allowed(unmeasured=True, unqualified=True):
        return
    request = Request(
        collection, TRIPLES, overrides=True, rules=settings.rules, limits=settings.round_limits,
        report=read_report(settings.qualification), unmeasured=allowed.unmeasured, unqualified=allowed.unqualified,
    )  # fmt: skip
    try:
        require_permitted(ledger, request)
    except NotQualified:
        raise
    except InputError:  # there is nothing to export: that is for the job to say
        return


def start_training(ledger: Ledger, collection: str, settings: SinkSettings, allowed: Allowed = NOTHING) -> Trigger:
    """A trigger by hand, whatever the policy says; a sink launches its job. `allowed` goes with it.

    Raises:
        NotQualified: as `require_permission`.
        ConfigError, UnknownCollection, InputError: as `trigger_manually`.
    """
    if settings.training.command:
        require_permission(ledger, collection, settings, allowed)
    return trigger_manually(ledger, collection, settings.training, allowed)
