"""Bytes from outside are answered, refused in words, or dead-lettered: never a traceback, a hang, or the machine's
memory. `make fuzz` runs the same for as long as one likes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from qrelay import wire
from qrelay.errors import QrelayError
from qrelay.types import JudgedSet
from qrelay.v1 import records_pb2
from tests.fuzz.attempt import attempt
from tests.fuzz.messages import MESSAGES, RECORDS, converted, same
from tests.fuzz.mutants import mutant
from tests.fuzz.parser import ROOT, Parser
from tests.fuzz.parsers import PARSERS
from tests.fuzz.readers import entered, readers
from tests.fuzz.run import seeds_of

EXAMPLES: Final = 30
"""Inputs of a cheap parser in the suite; with the monsters some 30 s of processor time in all."""
LEFT_OUT: Final = {
    "of gRPC's health service, as every server of gRPC has it": ("qrelay.runtime.health:checks_alone",),
    "what qrelay wrote itself; a report that does not hold is named, and stays as it is": (
        "qrelay.forgetting.folder:_report",
    ),
    "of this machine's kernel, or of qrelay's own package": (
        "qrelay.bench.environment:_cpu_quota",
        "qrelay.bench.environment:_memory_limit_gib",
        "qrelay.bench.probe:peak_mib",
        "qrelay.demo.answers:read_key",
        "qrelay.demo.loop.run:_lines",
        "qrelay.demo.loop.run:evaluation_set",
        "qrelay.models.openvino:_processor_flags",
        "qrelay.models.prepared:_container_allows",
        "qrelay.models.static_int8:calibration_texts",
        "qrelay.models.tuning:processor_name",
        "qrelay.reports.page:render",
    ),
    "of a process that this one started, on this machine": (
        "qrelay.cli.down:_process",
        "qrelay.cli.up:_announce_nats",
        "qrelay.index.builder:Builder.poll",
        "qrelay.runtime.natsserver:NatsServer._await_listening",
        "qrelay.training.rounds.installation:Installation.feed",
    ),
    "of a file that the same function wrote": ("qrelay.web.console.queries.people:pairs",),
    "columns of our databases, written in transactions": (
        "qrelay.judging.batches.store:SqlBatches.erase_texts",
        "qrelay.judging.batches.store:SqlBatches.find",
        "qrelay.judging.batches.store:SqlBatches.lines",
        "qrelay.judging.cache_records:decode",
        "qrelay.judging.cache_sql:_sqlite.<locals>.connect",
        "qrelay.labels.ledger.backup:_copy",
        "qrelay.labels.ledger.export_records:_of",
        "qrelay.labels.ledger.export_records:last_export",
        "qrelay.labels.ledger.outbox_rows:Run.of",
        "qrelay.labels.ledger.outbox_rows:Trigger.of",
        "qrelay.labels.ledger.packing:unpack",
        "qrelay.labels.ledger.reader:LabelledQuery.attribute",
        "qrelay.labels.ledger.reader:Snapshot._labels",
        "qrelay.labels.ledger.records:judgment_of",
        "qrelay.labels.ledger.records:query_of",
        "qrelay.labels.ledger.retractions:_of",
        "qrelay.labels.reconcile.evidence:Evidence.__init__",
    ),
    "written whole by the same command a moment ago, or by an earlier run of the same job": (
        "qrelay.cli.train:_train",
        "qrelay.demo.run:report",
        "qrelay.index.bm25:build_bm25",
        "qrelay.index.build:_complete",
        "qrelay.index.milvus.load:_Loader._noted",
        "qrelay.jobs.subprocess_launcher:SubprocessLauncher.place",
        "qrelay.models.openvino:Compiled._load",
        "qrelay.models.pushing:read_file",
        "qrelay.settings.record:_record",
        "qrelay.training.gate.baseline:evaluated",
        "qrelay.training.job.data:_export",
        "qrelay.training.job.slots:_metrics",
        "qrelay.training.job.slots:_start",
        "qrelay.training.stages:_is_whole",
        "qrelay.training.stages:run_stage",
    ),
    "counted, not read": ("qrelay.training.rounds.plan:plan",),
}
"""Readers without an entry in the table, by the reason why."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every parser's run, in processes of their own."""
    keep = tmp_path_factory.mktemp("findings")
    command = [sys.executable, "-m", "tests.fuzz", "--json", "--examples", str(EXAMPLES), "--size-mib", "0.25"]
    done = subprocess.run(
        [*command, "--keep", str(keep)], cwd=ROOT, env=_environ(), capture_output=True, text=True, check=False
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(PARSERS), done.stderr[-3000:]
    return {each["parser"]: each for each in told}


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}


@pytest.mark.parametrize("name", PARSERS)
def test_what_no_parser_expects_is_refused_in_words(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    found = outcomes[name]
    assert found["tried"] >= 4
    shown = [
        f"{finding['kind']} at {finding['where']} ({path})\n{finding['text']}" for path, finding in found["findings"]
    ]
    assert not shown, "\n\n".join(shown)


@pytest.fixture(scope="module")
def reached() -> frozenset[str]:
    """Every function of qrelay that some parser of the table enters with its valid inputs."""
    found: set[str] = set()
    for parser in PARSERS.values():
        for seed in seeds_of(parser):
            with tempfile.TemporaryDirectory() as folder, entered(found), suppress(QrelayError):
                parser.call(seed, Path(folder))
    return frozenset(found)


def test_every_reader_of_the_source_is_fuzzed_or_left_out_with_a_reason(reached: frozenset[str]) -> None:
    left_out = {name for names in LEFT_OUT.values() for name in names}
    missing = {name: call for name, call in readers().items() if name not in reached | left_out}
    assert not missing, f"new readers: give each an entry in tests/fuzz, or a reason in LEFT_OUT: {missing}"


def test_nothing_is_left_out_that_is_fuzzed_or_gone(reached: frozenset[str]) -> None:
    left_out = {name for names in LEFT_OUT.values() for name in names}
    assert not left_out & reached
    assert left_out <= readers().keys()


@pytest.mark.parametrize("name", PARSERS)
def test_valid_inputs_of_every_parser_are_read_or_refused_in_words(name: str) -> None:
    for seed in seeds_of(PARSERS[name]):
        assert attempt(PARSERS[name], seed) is None


def test_an_input_is_a_function_of_its_number() -> None:
    seeds = [b'{"a": [1, 2, {"b": "c"}]}', b"x\ty\n"]
    for form in ("json", "jsonl", "lines", "yaml", "proto", "bytes"):
        assert [mutant(seeds, form, n) for n in range(60)] == [mutant(seeds, form, n) for n in range(60)]
        assert len({mutant(seeds, form, n) for n in range(60)}) > 40


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: {}["a"], "KeyError"),
        (lambda: [].append([0] * 200_000_000), "more than 64 MiB"),
        (lambda: _raise(QrelayError("")), "an error without a text"),
    ],
)
def test_the_fuzzer_finds_tracebacks_memory_and_silence(call: Any, kind: str) -> None:
    found = attempt(Parser("p", "bytes", lambda _: [b""], lambda *_: call(), memory_mib=64), b"")
    assert found is not None and found.kind == kind


def _raise(error: Exception) -> None:
    raise error


# -- protobuf: every message of protos/, from its descriptor


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=20)
        case FieldDescriptor.CPPTYPE_STRING:
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats()
        case FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(width=32)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.sampled_from([each.number for each in field.enum_type.values])
        case FieldDescriptor.CPPTYPE_INT32:
            return st.integers(-(2**31), 2**31 - 1)
        case FieldDescriptor.CPPTYPE_UINT32:
            return st.integers(0, 2**32 - 1)
        case FieldDescriptor.CPPTYPE_UINT64:
            return st.integers(0, 2**64 - 1)
    return st.integers(-(2**63), 2**63 - 1)


@st.composite
def messages(draw: st.DrawFn, kind: type[Message], depth: int = 0) -> Message:
    """A message with any of its fields set, to anything of their types."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw(st.booleans()) or depth > 4:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update(
                draw(st.dictionaries(_scalar(field.message_type.fields[0]), st.text("ab"), max_size=2))
            )
        elif field.message_type is not None:
            inner = messages(field.message_type._concrete_class, depth + 1)
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(inner, max_size=2)))
            else:
                getattr(message, field.name).CopyFrom(draw(inner))
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_scalar(field), max_size=3)))
        else:
            setattr(message, field.name, draw(_scalar(field)))
    return message


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.DESCRIPTOR.name)
def test_every_message_survives_its_bytes_and_its_record_or_is_refused(kind: type[Message]) -> None:
    @settings(derandomize=True, max_examples=12, database=None)
    @given(messages(kind))
    def holds(message: Message) -> None:
        again = kind()
        again.ParseFromString(message.SerializeToString())
        assert again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
        with suppress(QrelayError):
            converted(message)

    holds()


def test_a_record_that_lost_something_on_its_way_is_seen() -> None:
    (judged, *_) = (record for record in RECORDS if isinstance(record, JudgedSet))
    (first, *others) = judged.judgments
    changed = replace(judged, judgments=(replace(first, judgment_key="another"), *others))
    assert same(judged, judged) and not same(judged, changed)


def test_every_record_has_a_conversion_both_ways() -> None:
    # The sink reads these parts of records by themselves.
    alone = {records_pb2.Score, records_pb2.JudgeIdentity, records_pb2.Utility}
    assert {type(wire.to_proto(record)) for record in RECORDS} | alone == set(wire._FROM_PROTO)
