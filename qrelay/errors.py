"""Every error that qrelay raises on purpose, as one tree.

    QrelayError
    ├── InputError                 the item is wrong; trying again cannot help
    │   ├── MalformedInput         a line, message or file that does not parse
    │   ├── InvalidQuery           empty, too long, or an id that cannot be used
    │   ├── UnknownCollection      no index serves this collection
    │   ├── QueryConflict          the query_id was used before with another text
    │   ├── UnknownVersion         the registry has no such model version
    │   ├── NotPromotable          the registry's rules do not let this version serve, or the slot go back there
    │   ├── NotQualified           labels that may not become training data; the text says whose, and what to do
    │   ├── Oversized              a message above a byte limit; the text names the limit
    │   └── RequestRefused         an endpoint answers other requests but not this one
    │       └── ContentFiltered    a content filter withheld the answer
    ├── TransientError             the world is wrong; trying again later may help
    │   ├── Overloaded             this replica holds all the work that it may hold
    │   ├── RateExceeded           the caller asks more often than this server lets them (`retry_after_s`)
    │   ├── BackendUnavailable     a model, endpoint, broker or database does not answer
    │   ├── BackendTimeout         it did not answer in time
    │   ├── RateLimited            it asked us to wait (`retry_after_s`)
    │   ├── OnHold                 nothing can be done for now, and no item is to blame: not an attempt
    │   │   ├── BudgetExhausted    what judging may cost is used up, for now or for this run
    │   │   ├── StoreUnavailable   where the results must be stored does not answer
    │   │   ├── EndpointPaused     an endpoint asked for a pause that is longer than one request may take
    │   │   ├── EndpointRefuses    an endpoint refuses the key, the account or a setting; somebody has to act
    │   │   └── AnswersPending     the answers are ordered and come later, with a batch
    │   └── Exhausted              delivered too often without an answer; its workers died
    ├── AccessError                who asks may not have it
    │   ├── Unauthenticated        nobody knows who asks: no token, or one that is wrong, expired or revoked
    │   └── PermissionDenied       who asks is known, and has not the role
    ├── SetupError                 the installation is wrong; somebody has to act
    │   ├── ConfigError            settings that do not hold; all problems at once
    │   ├── ModelError             a model that is absent, or whose bytes have another hash
    │   ├── CorpusIndexError       an index that is absent, corrupt or of another format
    │   ├── PortInUse              another process owns the address
    │   └── BrokerDenied           the message broker does not let this user do what it is to do
    └── InternalError              a broken invariant: this is a bug in qrelay

Each class is translated once, in `qrelay/runtime/translate.py`: to a gRPC status with details, and to
what happens to a queued message (retry with delay, or dead letter). A test proves that none is unmapped.

`reason` is the stable word that dashboards, dead letters and scripts match on; the text is for people and
says what to do.
"""

from __future__ import annotations

from typing import Final

_TEXT_CHARS: Final = 8_000
"""Of an error, which goes to logs, terminals, dead letters and gRPC's answers; what it quotes may have any length."""


class QrelayError(Exception):
    """Base of all errors raised on purpose. `str(error)` says what happened and what to do: it is text that UTF-8 can
    hold, shortened in its middle beyond _TEXT_CHARS."""

    reason = "error"

    def __init__(self, message: str = "") -> None:
        half = _TEXT_CHARS // 2
        shown = message if len(message) <= _TEXT_CHARS else f"{message[:half]} … {message[-half:]}"
        super().__init__(shown.encode("utf8", "backslashreplace").decode())


class InputError(QrelayError):
    """The item is wrong; trying again cannot help."""

    reason = "bad_input"


class MalformedInput(InputError):
    """A line, message or file that does not parse."""

    reason = "malformed"


class InvalidQuery(InputError):
    """A query that is empty, too long, or whose id cannot be used."""

    reason = "invalid_query"


class UnknownCollection(InputError):
    """No index of this retriever serves the collection."""

    reason = "unknown_collection"


class QueryConflict(InputError):
    """The query_id was used before with another text. The first text stays."""

    reason = "query_conflict"


class UnknownVersion(InputError):
    """The registry has no such model version."""

    reason = "unknown_version"


class NotPromotable(InputError):
    """The registry's rules do not let this version serve, or the slot go back there; the text says why."""

    reason = "not_promotable"


class NotQualified(InputError):
    """Labels that may not become training data: their judge was not measured, or fell short; the text says which
    judge, and what to do."""

    reason = "not_qualified"


class Oversized(InputError):
    """A message above a byte limit; the text names the limit and the setting."""

    reason = "oversized"


class RequestRefused(InputError):
    """A request that an endpoint refused or left without an answer, though it answers others."""

    reason = "refused"


class ContentFiltered(RequestRefused):
    """A request whose answer a content filter withheld."""

    reason = "filtered"


class TransientError(QrelayError):
    """The world is wrong; trying again later may help."""

    reason = "transient"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(TransientError):
    """This replica holds all the work that it may hold; another replica, or later."""

    reason = "overloaded"


class RateExceeded(TransientError):
    """The caller asks more often than `access.rates` lets them; `retry_after_s` says when they may again."""

    reason = "rate_exceeded"


class BackendUnavailable(TransientError):
    """A model, endpoint, broker or database does not answer."""

    reason = "backend_unavailable"


class BackendTimeout(TransientError):
    """A backend did not answer in time."""

    reason = "backend_timeout"


class RateLimited(TransientError):
    """A backend asked us to wait; `retry_after_s` says how long, where it said so."""

    reason = "rate_limited"


class OnHold(TransientError):
    """Nothing can be done for now, and no item is to blame: a worker holds its messages, fetches no more and tries
    again after `retry_after_s`; no attempt is counted, so that no outage, however long, makes a dead letter. None:
    not in this run, so a worker drains and ends, and its messages stay in the queue."""

    reason = "on_hold"
    handled = False
    """Whether the item was handled as far as it can be for now, so that handling it is known to harm nobody."""


class BudgetExhausted(OnHold):
    """What the work may cost is used up; `retry_after_s` says when there is budget again, None: not in this run."""

    reason = "budget"


class StoreUnavailable(OnHold):
    """Where the results must be stored does not answer, or its disk is full."""

    reason = "store_unavailable"


class EndpointPaused(OnHold):
    """An endpoint asked for a pause that is longer than one request may take; `retry_after_s` says for how long."""

    reason = "endpoint_paused"


class EndpointRefuses(OnHold):
    """An endpoint refuses the key, the account or a setting until somebody acts; asked again in `retry_after_s`."""

    reason = "endpoint_refuses"


class AnswersPending(OnHold):
    """What was asked is written down and will be answered with a batch; looked for again in `retry_after_s`."""

    reason = "answers_pending"
    handled = True


class Exhausted(TransientError):
    """A message that was delivered too often without an answer: its workers crashed or were killed."""

    reason = "exhausted"


class AccessError(QrelayError):
    """Who asks may not have it."""

    reason = "access"


class Unauthenticated(AccessError):
    """Nobody knows who asks: there is no token, or one that is wrong, expired or revoked."""

    reason = "unauthenticated"


class PermissionDenied(AccessError):
    """Who asks is known, and has not the role that this takes; the text names both."""

    reason = "permission_denied"


class SetupError(QrelayError):
    """The installation is wrong; somebody has to act."""

    reason = "setup"


class ConfigError(SetupError):
    """Settings that do not hold; the text lists all problems at once."""

    reason = "config"


class ModelError(SetupError):
    """A model that is absent, or whose bytes have another hash than the catalogue says."""

    reason = "model"


class CorpusIndexError(SetupError):
    """An index that is absent, corrupt or of another format version."""

    reason = "index"


class PortInUse(SetupError):
    """Another process owns the address."""

    reason = "port_in_use"


class BrokerDenied(SetupError):
    """The message broker does not know this user, or does not let it do what it is to do."""

    reason = "broker_denied"


class InternalError(QrelayError):
    """A broken invariant: this is a bug in qrelay."""

    reason = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} (this is a bug in qrelay: please report it)")
