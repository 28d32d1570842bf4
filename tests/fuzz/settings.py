"""Files that set an installation up: settings and their record, rubrics, certificates, keys, announcements."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from qrelay.judging.strategies.chat import ChatGrade
from qrelay.judging.strategies.lint import warnings
from qrelay.judging.strategies.rubric import Rubric, documents, load_rubric, parse_rubric
from qrelay.models.tuning import read as read_tuned
from qrelay.models.tuning import write as write_tuned
from qrelay.rundir import endpoints
from qrelay.runtime.natsaccounts import identity, write_accounts
from qrelay.security.certs import authority, is_development, issue
from qrelay.security.expiry import valid_until
from qrelay.security.tls import Files, files_of
from qrelay.settings.effective import find, renewed
from qrelay.settings.record import changes, write_settings
from qrelay.settings.sections import settings_classes
from qrelay.settings.sources import read_environment
from qrelay.types import Passage
from tests import samples
from tests.fuzz.parser import ROOT, Parser, beside, constant, each, file, written

_SETTINGS: Final = """\
all: {nats: {url: "nats://127.0.0.1:4222", replicas: 1}, data_dir: state}
judge:
  backend: openai
  model: gpt-small
  endpoint: {url: "http://localhost:1/v1", extra_body: {seed: 1}, total_timeout_s: 20}
  judges: {small: {backend: fake, strategy: graded}, big: {backend: fake, model: m}}
  budget: {tokens_per_day: 1000, tokens_per_run: 500}
retriever: {index_dir: index, embedder: hash, collections: [docs]}
reranker: {scorer: fake}
sink:
  qualification: report.json
  relevant_grades: {0-3: 2}
  training: {launcher: kubernetes, quiet_hours: "22:00-06:00",
    kubernetes: {namespace: n, image: i, env: {A: "1"}, tolerations: [{key: a}]}}
trainer: {gate: {bi_encoder: {frozen: sets/a, guard: [{set: sets/b, max_drop: 0.02}]}}, slots: [bi_encoder]}
"""


_VARIABLES: Final = (
    "QRELAY_JUDGE__BACKEND=fake\nQRELAY_RETRIEVER__COLLECTIONS=[docs, more]\nQRELAY_ALL__NATS__REPLICAS=3\n"
    "QRELAY_JUDGE__JUDGES={a: {backend: fake}}\nQRELAY_SINK__TRAINING__QUIET_HOURS=22:00-06:00\nQRELAY_DATA_DIR=x"
)


def _everything(effective: Any) -> None:
    """Every section, as services and commands ask for it, and the record that `qrelay up` makes of them."""
    each(*(partial(effective.settings, kind, section) for section, kind in settings_classes().items()))
    write_settings(effective.data_dir / "settings.yaml", effective, settings_classes())


def _settings_file(path: Path) -> None:
    _everything(replace(find(path, path.parent, {}), named=True))


def _tuned_and_record(name: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        effective = find(None, path.parent, {})
        changes(renewed(effective), settings_classes())
        _everything(effective)
        read_tuned(path.parent)

    return read


def _environment(data: bytes, folder: Path) -> None:
    lines = (line.partition("=") for line in data.decode("utf8", "surrogateescape").splitlines())
    environ = {name: value for name, _, value in lines if name and "\0" not in name + value}
    _everything(replace(find(None, folder, {}), variables=read_environment(environ)))


def _record(folder: Path) -> None:
    (folder / "qrelay.yaml").write_text(_SETTINGS)
    write_settings(folder / "settings.yaml", find(folder / "qrelay.yaml", folder, {}), settings_classes())


def _tuned(folder: Path) -> None:
    write_tuned(
        folder, {"settings": {"judge": {"backend": "fake", "model": "m"}}, "chosen": {"when": "2026", "judges": []}}
    )


def _rubrics(_: Path) -> Sequence[bytes]:
    folder = ROOT / "qrelay" / "judging" / "rubrics"
    schema = b"\nanswer: {read: json, reason: true, schema: {properties: {grade: {enum: [0, 1]}}}}\n"
    own = (ROOT / "examples" / "rubric.yaml").read_bytes()
    return [
        *(path.read_bytes() for path in sorted(folder.glob("*.yaml"))),
        own,
        own.partition(b"answer:")[0] + schema,
    ]


def _rubric(path: Path) -> None:
    documents.cache_clear()
    load_rubric("binary")
    found = parse_rubric(path.read_bytes(), path.name)
    if isinstance(found, Rubric):
        ChatGrade(found, min_mass=0.05).example(samples.query(), Passage("p", "d", "a title", "a text"))
        warnings(found)


def _seed(path: Path) -> None:
    identity(path, "judge")


def _announced(folder: Path) -> None:
    for endpoint in endpoints(folder).values():
        assert f"{endpoint.grpc} {endpoint.metrics}"


@cache
def _certificate_files() -> dict[str, bytes]:
    folder = Path(mkdtemp())
    try:
        issue(folder, authority(folder), "spiffe://qrelay/service/judge", ["localhost"])
        return {path.name: path.read_bytes() for path in folder.iterdir()}
    finally:
        shutil.rmtree(folder)


def _certificates(folder: Path) -> None:
    for name, data in _certificate_files().items():
        (folder / name).write_bytes(data)


PARSERS: Final = (
    Parser("settings file", "yaml", constant(_SETTINGS), file("qrelay.yaml", _settings_file)),
    Parser(
        "settings record",
        "yaml",
        written("settings.yaml", _record),
        file("settings.yaml", _tuned_and_record("settings.yaml")),
    ),
    Parser("tuned.yaml", "yaml", written("tuned.yaml", _tuned), file("tuned.yaml", _tuned_and_record("tuned.yaml"))),
    Parser("environment", "lines", constant(_VARIABLES), _environment),
    Parser("rubric", "yaml", _rubrics, file("r.yaml", _rubric)),
    Parser(
        "announcement of a service",
        "json",
        constant('{"service": "judge", "pid": 1, "grpc": "h:1", "metrics": "h:2"}'),
        beside(lambda _: None, "run/judge.json", _announced),
    ),
    *(
        Parser(
            f"{name} of a certificate's files",
            "lines",
            lambda _, name=name: [_certificate_files()[name]],
            beside(
                _certificates,
                name,
                lambda folder: each(
                    lambda: Files(files_of(folder)),
                    lambda: authority(folder),
                    lambda: is_development(folder),
                    lambda: valid_until(files_of(folder)),
                ),
            ),
        )
        for name in ("tls.crt", "tls.key", "ca.crt", "ca.key")
    ),
    Parser("seed of a user of NATS", "bytes", written("judge.nk", write_accounts), file("judge.nk", _seed)),
)
