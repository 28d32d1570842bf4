"""Who may do what: the one table, of every RPC, every action of the console and every command.

A role is a person's; `READER` is part of every role, the others are beside each other, and a person may have several.
`OPEN` takes none. Services have no roles: `SERVICES` says what each may call, which is little, because they meet in
the queues. Tests hold the table to the protos, the console's routes and the command tree: what is new needs a line.
`docs/security.md` shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from qrelay.config import Role
from qrelay.errors import PermissionDenied
from qrelay.security.identity import Kind, Principal

OPEN: Final = None
"""Whoever reaches the port: with TLS, who holds a certificate."""
_READER, _LABELLER, _OPERATOR, _TRAINER = Role


def _of(service: str, calls: str) -> list[str]:
    return [f"/{service}/{call}" for call in calls.split()]


RPCS: Final[Mapping[str, Role | None]] = {
    **dict.fromkeys(_of("grpc.health.v1.Health", "Check Watch List"), OPEN),
    **dict.fromkeys(_of("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo"), _READER),
    **dict.fromkeys(_of("qrelay.v1.RetrieverService", "GetInfo"), OPEN),
    **dict.fromkeys(_of("qrelay.v1.RetrieverService", "Retrieve StreamRetrieve Embed"), _READER),
    **dict.fromkeys(_of("qrelay.v1.RerankerService", "GetInfo"), OPEN),
    **dict.fromkeys(_of("qrelay.v1.RerankerService", "Rerank StreamRerank"), _READER),
    **dict.fromkeys(_of("qrelay.v1.JudgeService", "GetInfo"), OPEN),
    **dict.fromkeys(_of("qrelay.v1.JudgeService", "Judge StreamJudge"), _LABELLER),
    **dict.fromkeys(_of("qrelay.v1.SinkService", "GetInfo"), OPEN),
    **dict.fromkeys(
        _of("qrelay.v1.SinkService", "GetStats GetQueryStates ListJudgedSets ListDeadLetters ListModels"), _READER
    ),
    **dict.fromkeys(_of("qrelay.v1.SinkService", "Ingest StreamIngest ReplayDeadLetters"), _OPERATOR),
    **dict.fromkeys(_of("qrelay.v1.SinkService", "PromoteModel RollbackModel"), _OPERATOR),
    **dict.fromkeys(_of("qrelay.v1.SinkService", "Export StartTraining"), _TRAINER),
}
"""Full name -> the role that it takes."""

SERVICES: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("retriever", "reranker", "judge", "sink", "nats", "postgres"), frozenset()),
    "console": frozenset(),
    "trainer": frozenset(_of("qrelay.v1.SinkService", "GetQueryStates GetStats")),
}
"""Service of a certificate -> what it may call beside what is OPEN. The console says for which person it asks
(`statements.py`), so a call in their name is allowed as theirs; its certificate alone allows nothing. A training job
reads the ledger and the registry, not the services; `qrelay rounds` asks the sink how far its queries are."""
SPEAKS_FOR_PEOPLE: Final = "console"
"""The service from which a person's token, or a statement for it, is taken."""

ACTIONS: Final[Mapping[str, Role | None]] = {
    "open": OPEN,
    "read": _READER,
    "call": _READER,
    "judge": _LABELLER,
    "label": _LABELLER,
    "feed": _OPERATOR,
    "operate": _OPERATOR,
    "export": _TRAINER,
}
"""The value of `qrelay.web.security.Action` -> the role that it takes."""

_COMMANDS: Final[Mapping[Role, str]] = {
    _READER: """
        audit; audit sample; config; dlq list; dlq show; eval; eval agreement; eval answers; eval freeze;
        eval intervals; eval leaderboard; eval sample; healthcheck; index corpus; index info; index list;
        index passages; index search; index verify; judge batches; judge cache stats; judge check; judge compare;
        judge eval; judge lint; judge slice; label list; label queue; ledger audit-log; ledger info; mcp; mine;
        models history; models lineage; models list; models show; models tainted; models verify;
        models verify-version; models versions; reconcile; top; training status""",
    _LABELLER: """
        judge calibrate; judge nuggets assign; judge nuggets create; judge nuggets score; judge prefer; judge preview;
        judge qualify; judge try; label import; label set; label tasks;
        label withdraw; queries alternatives; queries generate""",
    _OPERATOR: """
        bench compare; bench judge; bench pipeline; bench record; bench reranker; bench retriever; bench sink;
        bench sizing; certs dev; console; demo; down; feed; forget; dlq replay; index build; index load;
        index reembed; index update; judge cache export; judge cache prune; judge collect; judge rejudge;
        judge submit; ledger backup; ledger compact; ledger migrate; ledger prune; models prepare; models promote;
        models prune; models pull; models push; models restore-judge; models retract-judge; models rollback;
        models tune; nats accounts; nats declare; serve; tokens add; tokens list; tokens revoke; training abandon;
        up""",
    _TRAINER: "export; models gate; publish; push; relabel; rounds; track; train; training run",
}
COMMANDS: Final[Mapping[str, Role]] = {
    " ".join(name.split()): role for role, names in _COMMANDS.items() for name in names.split(";")
}
"""Command -> the role that it takes. A command that asks a service shows a token or a certificate, and the service
checks; one that opens the ledger, the registry or another file itself needs the right to these files or that
database, and no service asks who runs it."""


def require_rpc(principal: Principal, method: str) -> None:
    """Returns where the principal may call the method. One that the table lacks, nobody may.

    Raises:
        PermissionDenied: they may not; the text says what it takes.
    """
    if method not in RPCS:
        raise PermissionDenied(f"no role is stated for {method}: nobody may call it")
    role = RPCS[method]
    if principal.kind is Kind.SERVICE and role is not OPEN:
        if method not in SERVICES.get(principal.name, ()):
            raise PermissionDenied(
                f"the certificate of the service {principal.name} does not allow {method}: a person has to ask"
            )
        return
    require(principal, role, method)


def require(principal: Principal, role: Role | None, what: str) -> None:
    """Returns where the principal has the role, and `what` takes it. Raises PermissionDenied: they have not."""
    if role is OPEN or principal.kind is Kind.LOCAL or role in principal.roles:
        return
    if role is Role.READER and principal.roles:
        return
    has = ", ".join(sorted(principal.roles)) or "none"
    raise PermissionDenied(
        f"{what} takes the role {role}, and {principal} has {has}: an operator gives roles, see docs/security.md"
    )


def as_markdown() -> str:
    """The table for people."""
    lines = ["| role | RPCs | console | commands |", "|---|---|---|---|"]
    for role in (OPEN, *Role):
        shown = (_short(RPCS, role), ", ".join(_with(ACTIONS, role)), _joined(_with(COMMANDS, role)))
        lines.append(f"| {role or 'none'} | {' | '.join(each or '-' for each in shown)} |")
    lines += ["", "| certificate of | may call, beside what takes no role |", "|---|---|"]
    for name, calls in SERVICES.items():
        lines.append(f"| {name} | {_joined(each.rpartition('/')[2] for each in sorted(calls)) or 'nothing'} |")
    return "\n".join(lines)


def _with(table: Mapping[str, Role | None], role: Role | None) -> list[str]:
    return sorted(name for name, needed in table.items() if needed == role)


def _short(table: Mapping[str, Role | None], role: Role | None) -> str:
    names = dict.fromkeys(each.rpartition("/")[2] for each in _with(table, role))
    return _joined(names)


def _joined(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
